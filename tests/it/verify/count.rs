//! Effects that the API itself counts, and counts that are not relied on.

use futures_util::future::join_all;

use super::api::{Api, Manners};
use super::{ALICE, COUNT, says, verdict, verdicts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_the_answers_hide_is_found_by_the_count() {
    let api = Api::start(Manners { keeps: true, secretly: true, ..Manners::default() }).await;
    let (status, report) = verdicts(format!("{}/orders", api.url()), &ALICE).await;
    assert_eq!((status, verdict(&report, "repeat")), (0, "pass"), "as far as the answers tell: {report:#}");
    let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!((status, verdict(&report, "repeat")), (1, "fail"), "{report:#}");
}

/// The first read for the case that comes after the repeat: two before all, one for each request of the control, two for the
/// repeat.
const AFTER_REPEAT: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_others_create_too_what_the_answers_prove_stays() {
    let repeat = async |manners| {
        let api = Api::start(manners).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        let instead = report["effects"].to_string();
        assert!(instead.contains("changed while nothing was sent"), "{report:#}");
        let of_keys = verdict(&report, "long-key").to_owned();
        (status, verdict(&report, "repeat").to_owned(), of_keys)
    };
    let busy = Manners { busy_from: Some(AFTER_REPEAT), ..Manners::default() };
    assert_eq!(repeat(busy).await, (1, "fail".to_owned(), "not-known".to_owned()));
    let kept = Manners { keeps: true, ..busy };
    assert_eq!(repeat(kept).await, (0, "pass".to_owned(), "pass".to_owned()));
    // The repeat was doubled by a count that is no longer relied on.
    let (status, verdict, _) = repeat(Manners { nameless: true, ..busy }).await;
    assert_eq!((status, verdict), (0, "not-known".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_is_not_given_any_more_is_not_gone_by_and_the_run_goes_on() {
    for from in [AFTER_REPEAT, AFTER_REPEAT + 1] {
        let manners = Manners { limited_from: Some(from), ..Manners::default() };
        let api = Api::start(manners).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        let instead = report["effects"]["instead"].as_str().expect("why not");
        assert!(status == 1 && instead.contains("answered with 429"), "{report:#}");
        says(&report, "concurrent", "fail");
        let api = Api::start(Manners { nameless: true, ..manners }).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        // It was seen while there was a count.
        assert_eq!((status, verdict(&report, "repeat")), (1, "fail"), "{report:#}");
        says(&report, "concurrent", "not-known");
        assert!(report["effects"].to_string().contains("answered with 429"), "{report:#}");
    }
}

/// What was seen twice while there was room stays; what a full page hides is not known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_that_stands_still_is_not_gone_by() {
    let pages = [(2, 0, "not-known"), (3, 0, "not-known"), (4, 1, "fail"), (1000, 1, "fail")];
    let running = pages.map(async |(page, status, repeat)| {
        let api = Api::start(Manners { nameless: true, page: Some(page), ..Manners::default() }).await;
        let (found, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        assert_eq!(found, status, "{page}: {report:#}");
        says(&report, "repeat", repeat);
        says(&report, "concurrent", if page == 1000 { "fail" } else { "not-known" });
        let by = if page == 1000 { "count" } else { "nothing" };
        assert_eq!(report["effects"]["by"], by, "{page}: {report:#}");
    });
    join_all(running).await;
}

/// An order of others, between two reads of the count: as the repeat is played, and as it is played once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_besides_is_not_taken_for_a_doubled_effect() {
    let quiet = Manners { keeps: true, nameless: true, ..Manners::default() };
    let others = [
        (None, "pass", "one effect, by the count"),
        (Some(AFTER_REPEAT - 1), "not-known", "others may have created something"),
        // Noticed, as nothing was sent: the count is not relied on.
        (Some(AFTER_REPEAT), "not-known", "changed while nothing was sent"),
    ];
    let running = others.map(async |(busy_at, repeat, said)| {
        let api = Api::start(Manners { busy_at, ..quiet }).await;
        let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
        assert_eq!(status, 0, "{busy_at:?}: {report:#}");
        says(&report, "repeat", repeat);
        assert!(report.to_string().contains(said), "{report:#}");
    });
    join_all(running).await;

    // An effect that is doubled is doubled once more.
    let api = Api::start(Manners { secretly: true, ..quiet }).await;
    let (status, report) = verdicts(format!("{}/orders", api.url()), &[&ALICE[..], &COUNT].concat()).await;
    assert_eq!(status, 1, "{report:#}");
    let row = report["cases"].as_array().expect("cases").iter().find(|row| row["case"] == "repeat").expect("a row");
    assert!(row["because"].as_str().expect("a text").contains("and so again"), "{row:#}");
}
