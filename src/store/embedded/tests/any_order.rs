//! Any steps in any order: at every moment, the records that are found are those that the steps imply. Operations are
//! written at once, together, or while a batch is being written. Meanwhile time passes, segments fill up, are copied
//! and removed, and the store is opened again after a crash.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::record::transitions::RenewTransition;
use crate::record::{Record, Settlement};
use crate::store::embedded::batch::Batch;
use crate::store::embedded::log::SegmentLimits;
use crate::store::embedded::queue::WriterWork;
use crate::store::embedded::read::silence;

const MINUTE: u64 = 60_000;

#[derive(Debug, Clone)]
enum Step {
    Claim(u8, Claim),
    Renew(u8, Claim),
    Settle(u8, SettledRecord),
    Release(u8, Token),
    /// The gathered batch is taken for writing, unless a batch is being written.
    Begin,
    /// The batch that was taken is written.
    Finish,
    Wait(u64),
    /// The time is written.
    Mark,
    /// The open segment is full.
    Rotate,
    /// Room is given back, completely or for one step.
    Reclaim {
        whole: bool,
    },
    Reopen {
        crash: bool,
    },
}

/// The records that the steps imply.
#[derive(Default)]
struct Model(HashMap<u8, (Record, u64)>);

impl Model {
    fn held(&self, name: u8, now: u64) -> Option<StoredRecord> {
        let (record, expires_at) = self.0.get(&name).filter(|(_, expires_at)| *expires_at > now)?;
        let silent_for = silence(record.claim.terms.retention, Duration::from_millis(expires_at - now));
        Some(StoredRecord { record: record.clone(), silent_for })
    }

    fn write(&mut self, name: u8, record: Record, now: u64) {
        let expires_at = now + transitions::time_to_live(&record).as_millis() as u64;
        self.0.insert(name, (record, expires_at));
    }

    fn take(&mut self, step: &Step, now: u64) {
        match step {
            Step::Claim(name, wanted) => {
                if let ClaimTransition::Write(claim) = transitions::claim(self.held(*name, now), wanted) {
                    self.write(*name, Record { claim, state: State::InFlight }, now);
                }
            }
            Step::Renew(name, claim) => {
                let record = self.held(*name, now).map(|held| held.record);
                match (transitions::renew(record.as_ref(), claim.token), record) {
                    (RenewTransition::Extend, Some(record)) => self.write(*name, record, now),
                    (RenewTransition::ClaimAgain, _) => {
                        self.write(*name, Record { claim: claim.clone(), state: State::InFlight }, now);
                    }
                    _ => {}
                }
            }
            Step::Settle(name, outcome) => {
                let record = self.held(*name, now).map(|held| held.record);
                if record.as_ref().is_none_or(|record| transitions::settles(Some(record), outcome.claim.token)) {
                    self.write(*name, outcome.clone().into_record(), now);
                }
            }
            Step::Release(name, token) => {
                if self.held(*name, now).is_some_and(|held| transitions::releases(&held.record, *token)) {
                    self.0.remove(name);
                }
            }
            Step::Begin | Step::Finish => {}
            Step::Wait(_) | Step::Mark | Step::Rotate | Step::Reclaim { .. } | Step::Reopen { .. } => {}
        }
    }
}

/// The store, the batch that is being written, and a clock that the test moves.
struct Subject {
    folder: TempDir,
    store: Option<(RecordLog, CommitQueue)>,
    writing: Option<Arc<Batch>>,
    clock: Arc<Clock>,
}

fn named(name: u8) -> RecordName {
    RecordName { route: if name.is_multiple_of(2) { "orders" } else { "payments" }.into(), digest: [name / 2; 16] }
}

impl Subject {
    fn new() -> Self {
        // In memory, where such a folder exists: this test does not depend on the disk.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let mut subject =
            Self { folder, store: None, writing: None, clock: Arc::new(Clock::stopped(1_763_700_000_000)) };
        subject.open();
        subject
    }

    fn open(&mut self) {
        let mut log = RecordLog::open(self.folder.path(), Durability::Process).expect("a store").log;
        // So small that a few records fill a segment.
        log.limits = SegmentLimits { smallest: 1500, largest: 4000, slack: 500 };
        let condition = Arc::new(CurrentCondition::new(Condition::Up));
        let queue = CommitQueue::new(log.view.clone(), Arc::default(), self.clock.clone(), condition);
        self.store = Some((log, queue));
    }

    fn log(&mut self) -> &mut RecordLog {
        &mut self.store.as_mut().expect("it is open").0
    }

    fn operate<T>(&mut self, name: u8, operation: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError>) -> T {
        let (_, queue) = self.store.as_ref().expect("it is open");
        let (result, _) = queue.carry_out(&named(name), Purpose::End, None, operation).expect("it is up");
        result.expect("readable")
    }

    fn begin(&mut self) {
        let (_, queue) = self.store.as_ref().expect("it is open");
        if self.writing.is_none()
            && let WriterWork::Write(batch) = queue.take()
        {
            self.writing = Some(batch);
        }
    }

    fn finish(&mut self) {
        let (log, queue) = self.store.as_mut().expect("it is open");
        if let Some(batch) = self.writing.take() {
            batch.commit(log, self.clock.now()).expect("written");
            queue.finish(&batch, log.open_segment().0);
        }
    }

    fn write_all(&mut self) {
        self.finish();
        self.begin();
        self.finish();
    }

    fn take(&mut self, step: &Step) {
        let now = self.clock.now();
        // A writer does one thing after the other.
        if !matches!(step, Step::Claim(..) | Step::Renew(..) | Step::Settle(..) | Step::Release(..) | Step::Wait(_)) {
            self.finish();
        }
        match step.clone() {
            Step::Claim(name, claim) => drop(self.operate(name, |on| on.claim(&claim, 0))),
            Step::Renew(name, claim) => drop(self.operate(name, |on| on.renew(&claim))),
            Step::Settle(name, record) => drop(self.operate(name, |on| {
                let bytes = codec::encode(&record, Placement::Within).into();
                on.settle(record.claim.token, bytes, transitions::time_to_live(&record))
            })),
            Step::Release(name, token) => drop(self.operate(name, |on| on.release(token))),
            Step::Begin => self.begin(),
            Step::Finish => self.write_all(),
            Step::Wait(time) => self.clock.advance(Duration::from_millis(time)),
            Step::Mark => self.log().append(&[], now, false).expect("written"),
            Step::Rotate => self.log().rotate(now).expect("another segment"),
            Step::Reclaim { whole } => while self.log().reclaim(now, || true).expect("room") && whole {},
            Step::Reopen { crash } => {
                self.write_all();
                let (mut log, _) = self.store.take().expect("it is open");
                if !crash {
                    log.close(now).expect("closed");
                }
                drop(log);
                self.open();
            }
        }
    }

    /// The record as the next operation finds it.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of a transaction of one lifetime")]
    fn held(&mut self, name: u8) -> Option<StoredRecord> {
        self.operate(name, |on| on.held())
    }

    /// The record as it is written.
    fn written(&mut self, name: u8) -> Option<StoredRecord> {
        let now = self.clock.now();
        let entry = self.log().view.find(&named(name)).expect("readable")?;
        if entry.head.kind == FrameKind::Gone {
            return None;
        }
        let stored = EncodedRecord { expires_at: entry.head.expires_at, record: entry.record().expect("readable") };
        held(&named(name), &RecordFormat::default(), &stored, now, &CurrentCondition::new(Condition::Up))
            .expect("readable")
    }
}

const NAMES: u8 = 5;

fn claims() -> impl Strategy<Value = Claim> {
    let on_unknown =
        prop_oneof![(1..100_u64).prop_map(|hold| UnknownPolicy::Hold(minutes(hold))), Just(UnknownPolicy::Retry)];
    (0..3_u8, 1..30_u64, 1..200_u64, on_unknown).prop_map(|(token, lease, retention, on_unknown)| {
        claim(token, Terms { lease: minutes(lease), retention: minutes(retention), on_unknown })
    })
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_millis(minutes * MINUTE)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let settled = |(name, claim, kind): (u8, Claim, u8)| match kind {
        0 => Step::Settle(name, completed(&claim, &[7; 300])),
        1 => Step::Settle(name, SettledRecord::new(claim, &Settlement::Unknown, 5)),
        _ => Step::Settle(name, completed(&claim, b"{}")),
    };
    let step = prop_oneof![
        4 => (0..NAMES, claims()).prop_map(|(name, claim)| Step::Claim(name, claim)),
        4 => (0..NAMES, claims()).prop_map(|(name, claim)| Step::Renew(name, claim)),
        3 => (0..NAMES, claims(), 0..3_u8).prop_map(settled),
        2 => (0..NAMES, 0..3_u8).prop_map(|(name, token)| Step::Release(name, Token([token; 16]))),
        3 => Just(Step::Begin),
        3 => Just(Step::Finish),
        4 => (1..80 * MINUTE).prop_map(Step::Wait),
        1 => Just(Step::Mark),
        1 => Just(Step::Rotate),
        2 => any::<bool>().prop_map(|whole| Step::Reclaim { whole }),
        1 => any::<bool>().prop_map(|crash| Step::Reopen { crash }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_found_is_what_the_moves_say(steps in steps()) {
        let (mut subject, mut model) = (Subject::new(), Model::default());
        for (at, step) in steps.iter().enumerate() {
            model.take(step, subject.clock.now());
            subject.take(step);
            for name in 0..NAMES {
                let expected = model.held(name, subject.clock.now());
                prop_assert_eq!(&subject.held(name), &expected, "{} after step {}, {:?}", name, at, step);
                if matches!(step, Step::Finish | Step::Reopen { .. }) {
                    prop_assert_eq!(subject.written(name), expected, "{} written, step {}, {:?}", name, at, step);
                }
            }
        }
        // When all records have expired, only the open segment is left.
        subject.take(&Step::Finish);
        subject.take(&Step::Wait(1000 * MINUTE));
        subject.take(&Step::Rotate);
        subject.take(&Step::Reclaim { whole: true });
        prop_assert_eq!(subject.log().view.read().full.len(), 0);
    }
}
