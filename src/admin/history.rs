//! What happened in the last hour, by the minute: differences of the counters that Prometheus reads, taken every few
//! seconds. A request pays nothing for it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{MetricsSnapshot, RequestOutcome, StoreReading};

/// How many minutes are kept.
pub(super) const MINUTES: usize = 60;
/// Of so many routes, the busiest of each minute, that minute's counts are kept: three megabytes in the hour.
const ROUTES: usize = 200;
/// How long each of them is.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// A rate is that of so long.
const LATELY: Duration = Duration::from_secs(10);
/// Counters are not looked at more often.
const AT_LEAST: Duration = Duration::from_secs(1);

pub(super) struct History {
    begun: Instant,
    /// The one that is under way comes last.
    minutes: VecDeque<Minute>,
    /// Which minute since the beginning that is.
    current: u64,
    last: MetricsSnapshot,
    /// When so many requests had been counted, for the last seconds.
    lately: VecDeque<(Instant, u64)>,
}

#[derive(Default)]
struct Minute {
    /// Only of routes that had any; in the order of [`RequestOutcome::ALL`].
    requests: HashMap<String, [u64; RequestOutcome::ALL.len()]>,
    store: StoreReading,
}

/// The calls to the store, minute by minute.
pub(super) struct StoreHistory {
    pub(super) calls: Vec<u64>,
    pub(super) errors: Vec<u64>,
    /// The mean time of a call; `None` without one.
    pub(super) mean: Vec<Option<Duration>>,
    /// What 99 of 100 calls took less than, as coarse as the histogram is.
    pub(super) slow: Vec<Option<Duration>>,
}

impl History {
    /// Begins with these counts.
    pub(super) fn new(reading: MetricsSnapshot, now: Instant) -> Self {
        let lately = VecDeque::from([(now, reading.requests())]);
        Self { begun: now, minutes: VecDeque::from([Minute::default()]), current: 0, last: reading, lately }
    }

    /// Whether it is worth looking at the counters again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.lately.back().is_none_or(|(last, _)| now.duration_since(*last) >= AT_LEAST)
    }

    /// Adds what happened since the last reading. It counts for the minute that is under way `now`.
    pub(super) fn add(&mut self, reading: MetricsSnapshot, now: Instant) {
        let minute = now.duration_since(self.begun).as_secs() / MINUTE.as_secs();
        let passed = minute.saturating_sub(self.current).min(MINUTES as u64);
        if passed > 0 {
            self.minutes.iter_mut().rev().take(1).for_each(Minute::finish);
        }
        for _ in 0..passed {
            self.minutes.push_back(Minute::default());
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
        self.current = minute;
        if let Some(current) = self.minutes.back_mut() {
            current.add(&self.last, &reading);
        }
        while self.lately.len() > 1 && self.lately.front().is_some_and(|(at, _)| now.duration_since(*at) > LATELY) {
            self.lately.pop_front();
        }
        self.lately.push_back((now, reading.requests()));
        self.last = reading;
    }

    /// The counts of now.
    pub(super) fn last(&self) -> &MetricsSnapshot {
        &self.last
    }

    /// Requests in each second, in the last ones.
    pub(super) fn per_second(&self) -> f64 {
        let (Some((since, before)), Some((until, after))) = (self.lately.front(), self.lately.back()) else {
            return 0.0;
        };
        let seconds = until.duration_since(*since).as_secs_f64();
        // Far fewer than what a float holds exactly.
        if seconds > 0.0 { after.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }

    /// What the requests of a route got, minute by minute; without what none of them got.
    pub(super) fn outcomes(&self, route: &str) -> BTreeMap<&'static str, Vec<u64>> {
        let of = |(place, outcome): (usize, RequestOutcome)| {
            let counts = self.by_minute(|minute| minute.requests.get(route).map_or(0, |counts| counts[place]));
            counts.iter().any(|count| *count > 0).then(|| (outcome.as_str(), counts))
        };
        RequestOutcome::ALL.into_iter().enumerate().filter_map(of).collect()
    }

    /// All requests of a route in the hour.
    pub(super) fn traffic(&self, route: &str) -> u64 {
        let of_route = |minute: &Minute| minute.requests.get(route).map_or(0, |counts| counts.iter().sum());
        self.minutes.iter().map(of_route).sum::<u64>()
    }

    pub(super) fn store(&self) -> StoreHistory {
        StoreHistory {
            calls: self.by_minute(|minute| minute.store.calls),
            errors: self.by_minute(|minute| minute.store.errors),
            mean: self.by_minute(|minute| minute.store.mean()),
            slow: self.by_minute(|minute| minute.store.slow()),
        }
    }

    /// The oldest first; those before the beginning are as if nothing happened.
    fn by_minute<T: Default + Clone>(&self, of: impl Fn(&Minute) -> T) -> Vec<T> {
        let mut all = vec![T::default(); MINUTES - self.minutes.len()];
        all.extend(self.minutes.iter().map(of));
        all
    }
}

impl Minute {
    fn add(&mut self, before: &MetricsSnapshot, after: &MetricsSnapshot) {
        for (name, route) in &after.routes {
            let old = before.routes.get(name).map_or([0; RequestOutcome::ALL.len()], |route| route.outcomes);
            if route.outcomes == old {
                continue;
            }
            let counts = self.requests.entry(name.clone()).or_default();
            for (place, count) in counts.iter_mut().enumerate() {
                *count += route.outcomes[place].saturating_sub(old[place]);
            }
        }
        self.store.add(&before.store, &after.store);
    }

    /// Forgets all but the busiest routes.
    fn finish(&mut self) {
        if self.requests.len() <= ROUTES {
            return;
        }
        let mut counts: Vec<u64> = self.requests.values().map(|counts| counts.iter().sum()).collect();
        let (_, least, _) = counts.select_nth_unstable_by(ROUTES - 1, |one, other| other.cmp(one));
        let (least, mut room) = (*least, ROUTES);
        let above = self.requests.values().filter(|counts| counts.iter().sum::<u64>() > least).count();
        room -= above;
        self.requests.retain(|_, counts| match counts.iter().sum::<u64>().cmp(&least) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            }
        });
        self.requests.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RouteReading;

    fn reading(executed: &[u64], calls: u64) -> MetricsSnapshot {
        let route = |(name, executed): (&str, &u64)| {
            let mut route = RouteReading::default();
            route.outcomes[0] = *executed;
            (name.to_owned(), route)
        };
        let mut reading = MetricsSnapshot {
            routes: ["a", "b"].into_iter().zip(executed).map(route).collect(),
            ..MetricsSnapshot::default()
        };
        reading.store.calls = calls;
        reading.store.seconds = calls as f64 * 0.002;
        // All within the third bound.
        reading.store.buckets[2..].fill(calls);
        reading
    }

    #[tokio::test]
    async fn what_happened_counts_for_its_minute() {
        let begun = Instant::now();
        let mut history = History::new(reading(&[5], 0), begun);
        history.add(reading(&[7], 10), begun + Duration::from_secs(30));
        history.add(reading(&[8, 4], 10), begun + Duration::from_secs(61));
        history.add(reading(&[8, 4], 10), begun + Duration::from_secs(200));
        let executed = |route| history.outcomes(route).remove("executed").expect("counts");
        assert_eq!((executed("a").len(), &executed("a")[56..]), (MINUTES, &[2, 1, 0, 0][..]));
        assert_eq!(&executed("b")[56..], [0, 4, 0, 0]);
        assert_eq!((history.traffic("a"), history.traffic("b"), history.outcomes("a").len()), (3, 4, 1));
        let store = history.store();
        assert_eq!(&store.calls[56..], [10, 0, 0, 0]);
        assert_eq!(&store.mean[56..58], [Some(Duration::from_millis(2)), None]);
        assert_eq!(store.slow[56], Some(Duration::from_millis(5)));
    }

    #[tokio::test]
    async fn an_hour_is_kept_and_no_more() {
        let begun = Instant::now();
        let mut history = History::new(reading(&[0], 0), begun);
        for minute in 1..200 {
            history.add(reading(&[minute], 0), begun + Duration::from_secs(60 * minute));
        }
        assert_eq!((history.minutes.len(), history.traffic("a")), (MINUTES, 60));
        // As after a day of sleep.
        history.add(reading(&[200], 0), begun + Duration::from_secs(86_400 * 2));
        assert_eq!((history.minutes.len(), history.traffic("a")), (MINUTES, 1));
    }

    #[tokio::test]
    async fn of_many_routes_the_busiest_of_a_minute_are_kept() {
        let many = |each: u64| {
            let route = |number: u64| {
                let mut route = RouteReading::default();
                route.outcomes[0] = each * if number < 50 { 3 } else { 1 };
                (format!("r{number:05}"), route)
            };
            MetricsSnapshot { routes: (0..5000).map(route).collect(), ..MetricsSnapshot::default() }
        };
        let begun = Instant::now();
        let mut history = History::new(many(0), begun);
        for minute in 1..80 {
            history.add(many(minute), begun + Duration::from_secs(60 * minute));
        }
        let kept: Vec<usize> = history.minutes.iter().map(|minute| minute.requests.len()).collect();
        assert!(kept[..MINUTES - 1].iter().all(|kept| *kept == ROUTES) && kept[MINUTES - 1] == 5000, "{kept:?}");
        assert_eq!(history.traffic("r00007"), 3 * MINUTES as u64);
    }

    #[tokio::test]
    async fn the_rate_is_that_of_the_last_seconds() {
        let begun = Instant::now();
        let mut history = History::new(reading(&[0], 0), begun);
        assert!((history.per_second(), history.is_due(begun)) == (0.0, false));
        for second in 1..=30 {
            let now = begun + Duration::from_secs(second);
            assert!(history.is_due(now));
            history.add(reading(&[if second <= 20 { second * 50 } else { 1000 }], 0), now);
            if second == 20 {
                assert!((history.per_second() - 50.0).abs() < 1e-9);
            }
        }
        assert!(history.per_second() < 6.0);
    }
}
