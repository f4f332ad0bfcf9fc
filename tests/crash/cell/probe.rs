//! A cell with `[route.probe]`: whoever asks the backend about an attempt is struck while it does.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, Mode, Outcome, SHORT_LEASE, Step, Store, StoreKind, Telling, audit_as, config_of, start};
use crate::backend::{Manner, read_ledger};
use crate::client::{Answer, until};
use crate::process::{Backend, Sidecar, StopAt, Stopped};

#[derive(Debug, Clone, Copy)]
pub struct ProbeCell {
    /// Where the prober stops.
    pub step: Step,
    pub prober: Prober,
    pub blow: Blow,
    pub store: StoreKind,
    /// Whether the backend has executed what became unknown.
    pub executed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prober {
    /// The owner of the attempt, whose connection to the backend broke.
    Owner,
    /// Another one, since the owner was killed.
    Another,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// It is killed, and started again.
    Killed,
    /// It is frozen until others have settled the record and a lease is over, and continues.
    Frozen,
}

/// The steps of a probe. Whoever asks holds the lock of the record: struck, it is in the way of others until that ends.
pub const PROBE_STEPS: [Step; 3] =
    [Step::Sidecar("before-probe"), Step::Sidecar("before-probe-exchange"), Step::Sidecar("after-probe-exchange")];

/// The longest time of an attempt: where the owner was lost, an absence counts only after it.
pub(super) const SHORT_ATTEMPT: Duration = Duration::from_secs(5);
/// The same where no absence has to be waited for.
pub(super) const LONG_ATTEMPT: Duration = Duration::from_secs(60);

impl ProbeCell {
    /// Runs the cell, in separate processes.
    pub fn play(self) -> Outcome {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _telling = Telling { folder: folder.path(), cell: format!("{self:?}") };
        self.story(folder.path())
    }

    /// The owner is lost, and the backend has nothing.
    pub fn waits_for_absence(self) -> bool {
        self.prober == Prober::Another && !self.executed
    }

    fn story(self, folder: &Path) -> Outcome {
        let store = Store::start(self.store, folder);
        let manner = match (self.prober, self.executed) {
            (Prober::Owner, true) => Manner::LosesAnswer,
            (Prober::Owner, false) => Manner::LosesOrder,
            (Prober::Another, _) => Manner::Fair,
        };
        let backend = Backend::start(folder, manner, None);
        let attempt_timeout = if self.waits_for_absence() { SHORT_ATTEMPT } else { LONG_ATTEMPT };
        let config = config_of(&backend.url(), &store.url(), SHORT_LEASE, Mode::Probe, attempt_timeout);
        std::fs::write(folder.join("onlyonce.toml"), config).expect("a writable folder");
        let client = Client::default();

        let (first, mut prober, stopped) = match self.prober {
            Prober::Owner => self.owner(folder, &client),
            Prober::Another => self.another(folder, &client),
        };
        client.ask_at_once(&[prober.address, prober.address]);
        match self.blow {
            Blow::Killed => prober.kill(),
            Blow::Frozen => prober.freeze(),
        }
        let struck = Instant::now();
        let other = start(folder, "other", None);
        client.ask_until(other.address, Answer::is_settled);
        match self.blow {
            Blow::Killed => {
                drop(stopped);
                // With an embedded store, the other one is the one that was started again.
                if self.store != StoreKind::Embedded {
                    prober = start(folder, "prober-again", None);
                }
            }
            Blow::Frozen => {
                thread::sleep((SHORT_LEASE * 5 / 4).saturating_sub(struck.elapsed()));
                stopped.go_on();
                prober.thaw();
                // Time for its exchange, which must be void; the test does not depend on it.
                thread::sleep(Duration::from_millis(200));
            }
        }
        let last = match self.store {
            StoreKind::Embedded => client.ask_to_the_end(&[&other], is_final),
            StoreKind::Redis | StoreKind::Postgres => client.ask_to_the_end(&[&prober, &other], is_final),
        };

        let executions = read_ledger(&backend.ledger);
        audit_as(Mode::Probe, &executions, &client.answers.into_inner().expect("no panic"));
        let [execution] = &executions[..] else { panic!("one execution, of the first or of a repeat: {executions:?}") };
        assert_eq!(execution.attempt, 1, "a key that was freed begins anew");
        let location = format!("/orders/{}", execution.id);
        assert_eq!(last.content.location.as_deref(), Some(location.as_str()), "what was executed is what is told");
        assert_eq!(last.is_problem("already-completed"), self.executed, "{last}");
        Outcome {
            first: first.map_or_else(|| "no answer".to_owned(), |answer| answer.to_string()),
            last: last.to_string().trim_end_matches(" replayed").to_owned(),
            executions: executions.len(),
        }
    }

    /// The owner's attempt ends unknown, and it asks.
    fn owner(self, folder: &Path, client: &Client) -> (Option<Answer>, Sidecar, Stopped) {
        let stop = StopAt::new(self.step.name());
        let prober = start(folder, "prober", Some(&stop));
        let first = client.ask(prober.address);
        (first, prober, stop.wait())
    }

    /// The owner is killed, and another one asks.
    fn another(self, folder: &Path, client: &Client) -> (Option<Answer>, Sidecar, Stopped) {
        let stop = StopAt::new(if self.executed { "before-complete" } else { "before-send" });
        let mut owner = start(folder, "owner", Some(&stop));
        let first = thread::scope(|scope| {
            let (client, address) = (&client, owner.address);
            let first = scope.spawn(move || client.ask(address));
            let _stopped = stop.wait();
            owner.kill();
            first.join().expect("the first request's client")
        });
        let stop = StopAt::new(self.step.name());
        let prober = start(folder, "prober", Some(&stop));
        let stopped = until("somebody asks for the lost owner", || {
            client.ask(prober.address).expect("a sidecar that lives answers");
            stop.reached()
        });
        (first, prober, stopped)
    }
}

/// Nothing is unknown for ever.
fn is_final(answer: &Answer) -> bool {
    answer.replayed || answer.is_problem("already-completed")
}

/// Adds a probe to a configuration that ends with its route. What others need to ask for a lost owner is kept encrypted.
pub(super) fn with_probe(config: &str, attempt_timeout: Duration) -> String {
    let keys = "[store]\nencryption_keys = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]\n";
    let config = config.replace("[store]\n", keys);
    let config = config.replace("[upstream]\n", &format!("[upstream]\nattempt_timeout = \"{attempt_timeout:?}\"\n"));
    format!(
        r#"{config}
        wait_timeout = "1s"
        [route.probe]
        path = "/orders?key={{key}}&item={{json:/item}}"
        authorization = "Bearer probe"
        found = {{ status = ["200"], json = "/data/0/id" }}
        absent = {{ status = ["200"], json_empty = "/data" }}
        after = "100ms"
        timeout = "500ms"
        "#
    )
}
