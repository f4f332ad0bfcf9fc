//! Any steps in any order end as in memory.

use proptest::prelude::*;

use super::by_hand::{reply, swap};
use super::*;

/// One step of a scenario, by one of three tokens.
#[derive(Debug, Clone)]
enum ScriptStep {
    Claim(Claim),
    Renew(Claim),
    Settle(Box<SettledRecord>),
    Release(Token),
    Find,
    /// An operator looks, and frees the key or settles it.
    ByHand {
        complete: bool,
        force: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<ScriptStep>> {
    let claims = (1..=3_u8, prop::sample::select(vec![RETRY, HOLD, LOST_RETRY, LOST_HOLD]), 0..8_u8).prop_map(
        |(token, terms, body)| {
            let mut claim = claim(token, terms);
            // Now and then, the key is used for something else.
            claim.fingerprint.body[0] = body / 7;
            claim
        },
    );
    let step = (claims, 0..10_u8).prop_map(|(claim, verb)| match verb {
        0..3 => ScriptStep::Claim(claim),
        3 => ScriptStep::Renew(claim),
        4 => ScriptStep::Settle(completed(&claim, b"{}").into()),
        5 => ScriptStep::Settle(unknown(&claim).into()),
        6 => ScriptStep::Release(claim.token),
        7 => ScriptStep::Find,
        _ => ScriptStep::ByHand { complete: verb == 9, force: claim.token.0[0] == 1 },
    });
    prop::collection::vec(step, 1..20)
}

pub(in crate::store) async fn any_order_of_moves_ends_as_in_memory(subject: &Subject) {
    let store = subject.store.clone();
    let runtime = tokio::runtime::Handle::current();
    let check = move || {
        let memory = Memory::new(DigestKey::from_bytes([0; 32]));
        proptest!(ProptestConfig::with_cases(150), |(steps in steps())| {
            let name = name();
            runtime.block_on(async {
                for step in &steps {
                    let (expected, done) = (take(&memory, &name, step).await, take(&*store, &name, step).await);
                    prop_assert_eq!(done, expected, "{:?} of {:?}", step, &steps);
                }
                Ok(())
            })?;
        });
    };
    tokio::task::spawn_blocking(check).await.expect("no difference");
}

/// Carries a step out, and tells what came of it in words that do not depend on the time it took.
async fn take(store: &dyn Store, name: &RecordName, step: &ScriptStep) -> String {
    let told = |held: StoredRecord| format!("{:?} {:?}", held.owner(), held.record);
    match step {
        ScriptStep::Claim(claim) => match store.claim(name, claim).await.expect("an answer") {
            Claimed::Granted(claim) => format!("granted {claim:?}"),
            Claimed::Refused(held) => format!("refused {}", told(*held)),
        },
        ScriptStep::Renew(claim) => format!("{:?}", store.renew(name, claim).await.expect("an answer")),
        ScriptStep::Settle(record) => format!("{:?}", store.settle(name, record).await.expect("an answer")),
        ScriptStep::Release(token) => format!("{:?}", store.release(name, *token).await.expect("an answer")),
        ScriptStep::ByHand { complete, force } => {
            let Some(held) = find(store, name).await else { return "nothing".to_owned() };
            let wanted = match complete {
                true => transitions::complete_by_hand(held.seen(), reply(Vec::new()), 8, *force),
                false => transitions::release_by_hand(held.seen(), *force),
            };
            match wanted {
                Ok(wanted) => format!("{:?}", swap(store, name, &wanted).await),
                Err(why) => format!("{why:?}"),
            }
        }
        ScriptStep::Find => format!("{:?}", store.find(name).await.expect("an answer").map(told)),
    }
}
