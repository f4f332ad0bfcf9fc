//! The table of routes, in the columns that there is room for.

use super::sums::{Sums, compact};
use crate::admin::status::RouteStatus;

/// The table of routes: names and a chart share what the numbers leave.
pub(super) struct Columns {
    name: usize,
    numbers: Vec<&'static Number>,
    chart: usize,
}

/// A column of numbers.
struct Number {
    title: &'static str,
    width: usize,
    /// Those with the highest go first where there is no room.
    rank: u8,
    of: fn(&RouteStatus, &Sums) -> u64,
}

const NUMBERS: [Number; 7] = [
    Number { title: "RAN", width: 6, rank: 3, of: |_, sums| sums.ran + sums.passed },
    Number { title: "REPLAYED", width: 8, rank: 4, of: |_, sums| sums.replayed },
    Number { title: "HELD", width: 6, rank: 5, of: |_, sums| sums.held },
    Number { title: "REFUSED", width: 7, rank: 6, of: |_, sums| sums.refused },
    Number { title: "TROUBLE", width: 7, rank: 2, of: |_, sums| sums.trouble },
    Number { title: "NOW", width: 5, rank: 7, of: |route, _| unsigned(route.in_flight + route.waiting) },
    Number { title: "UNKNOWN", width: 7, rank: 1, of: |route, _| unsigned(route.unknown) },
];

pub(super) const MINUTES: usize = 60;

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

impl Columns {
    pub(super) fn within(width: usize, widest: usize) -> Self {
        let mut numbers: Vec<&Number> = NUMBERS.iter().collect();
        let taken = |numbers: &[&Number]| numbers.iter().map(|number| number.width + 1).sum::<usize>();
        let short = widest.clamp("ROUTE".len(), 8);
        while taken(&numbers) + short > width
            && let Some(least) = numbers.iter().map(|number| number.rank).max()
        {
            numbers.retain(|number| number.rank != least);
        }
        let rest = width.saturating_sub(taken(&numbers));
        // A chart has twelve columns, or there is none.
        let name = widest.clamp("ROUTE".len(), 40).min(rest.saturating_sub(12)).max(short.min(rest));
        // A whole number of minutes for each character.
        let room = rest.saturating_sub(name + 2).min(MINUTES);
        let chart = (1..=room).rev().find(|chart| MINUTES.is_multiple_of(*chart)).unwrap_or_default();
        Self { name, numbers, chart }
    }

    pub(super) fn head(&self) -> String {
        let mut head = format!("{:<width$}", "ROUTE", width = self.name);
        for Number { title, width, .. } in &self.numbers {
            head.push_str(&format!(" {title:>width$}"));
        }
        if self.chart >= "LAST HOUR".len() {
            head.push_str("  LAST HOUR");
        }
        head
    }

    pub(super) fn row(&self, route: &RouteStatus, sums: &Sums) -> String {
        let mut row = format!("{:<width$}", clipped(&route.route, self.name), width = self.name);
        for Number { width, of, .. } in &self.numbers {
            row.push_str(&format!(" {:>width$}", compact(of(route, sums))));
        }
        row.push_str("  ");
        row.push_str(&self.chart(route));
        row.trim_end().to_owned()
    }

    /// All its requests, as high as they were many.
    fn chart(&self, route: &RouteStatus) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if self.chart == 0 {
            return String::new();
        }
        let minute = |minute: usize| -> u64 { route.outcomes.values().filter_map(|counts| counts.get(minute)).sum() };
        let each = MINUTES / self.chart;
        let sums: Vec<u64> = (0..self.chart).map(|at| (at * each..(at + 1) * each).map(minute).sum()).collect();
        let most = sums.iter().copied().max().unwrap_or_default().max(1);
        let bar = |sum: &u64| match usize::try_from(sum.saturating_mul(8).div_ceil(most)) {
            Ok(0) | Err(_) => ' ',
            Ok(height) => BARS[height.min(BARS.len()) - 1],
        };
        sums.iter().map(bar).collect()
    }
}

/// With an ellipsis where it is too long. Control characters would be for the terminal.
pub(super) fn clipped(text: &str, width: usize) -> String {
    let text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    if text.clone().count() <= width {
        return text.collect();
    }
    text.take(width.saturating_sub(1)).chain(['…']).collect()
}
