use std::future::pending;
use std::thread;

use tokio::sync::oneshot;

use super::*;

fn waiting() -> usize {
    Ticker::here().list().slots.iter().filter_map(TimerSlot::waker).count()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_noticed_never_early_and_at_most_a_tick_late() {
    for wanted in [0, 1, 49, 50, 51, 75, 100, 130, 2_000, 60_000] {
        // In the middle of two looks, and after a long silence.
        for silence in [0, 10, 49, 1_000] {
            tokio::time::sleep(Duration::from_millis(silence)).await;
            let (begun, wanted) = (Instant::now(), Duration::from_millis(wanted));
            sleep(wanted).await;
            let late = begun.elapsed().checked_sub(wanted).expect("not early");
            assert!(late <= TICK + Duration::from_millis(1), "{wanted:?} after {silence}: {late:?} late");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
    let begun = Instant::now();
    let mut late = pin!(sleep(Duration::from_secs(3600)));
    tokio::select! {
        () = &mut late => panic!("an hour has not passed"),
        () = sleep(Duration::from_secs(1)) => {}
    }
    assert!(begun.elapsed() <= Duration::from_secs(1) + TICK);
    late.await;
    assert!(begun.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn many_that_are_due_in_one_moment_are_woken_by_one_look() {
    let begun = Instant::now();
    let sleeps: Vec<_> = (1..=40).map(|ms| tokio::spawn(sleep(Duration::from_millis(ms)))).collect();
    for sleep in sleeps {
        sleep.await.expect("no panic");
    }
    assert!(begun.elapsed() <= TICK + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn nothing_ticks_while_nobody_waits_and_places_are_used_again() {
    for _ in 0..3 {
        let mut sleeps: Vec<_> = (0..10).map(|_| sleep(Duration::from_secs(1))).collect();
        for sleep in &mut sleeps {
            assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut *sleep).poll(cx))).await.is_pending());
        }
        assert_eq!(waiting(), 10);
    }
    assert_eq!(waiting(), 0);
    // What was asked for and given up is looked for once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ticker = Ticker::here();
    let list = ticker.list();
    assert_eq!((list.next, list.slots.len()), (None, 10));
}

#[tokio::test(start_paused = true)]
async fn what_is_done_in_time_has_no_place() {
    assert_eq!(timeout(Duration::from_secs(1), pin!(async { 7 })).await, Ok(7));
    assert_eq!(Ticker::here().list().slots.len(), 0);
    assert_eq!(timeout(Duration::from_secs(1), pending::<()>()).await, Err(Elapsed));
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sender.send(8)
    });
    assert_eq!(timeout(Duration::from_secs(2), receiver).await, Ok(Ok(8)));
    assert_eq!(waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_polled_last_is_woken() {
    let mut sleep = sleep(Duration::from_secs(1));
    assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut sleep).poll(cx))).await.is_pending());
    tokio::spawn(sleep).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_flag_reaches_those_who_wait_for_something_else() {
    let flag = Arc::new(Flag::default());
    let begun = Instant::now();
    let sleeping = tokio::spawn({
        let flag = Arc::clone(&flag);
        async move { flag.sleep(Duration::from_secs(3600)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    flag.raise();
    assert!(!sleeping.await.expect("no panic"));
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert!(!flag.sleep(Duration::from_secs(3600)).await, "raised before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_have_lists_of_their_own_and_futures_go_between_them() {
    let tasks: Vec<_> = (0..200)
        .map(|task| {
            tokio::spawn(async move {
                for _ in 0..5 {
                    sleep(Duration::from_millis(task % 60)).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

#[test]
fn a_sleep_outlives_the_runtime_that_it_began_on() {
    let runtime = || runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut sleep = Box::pin(sleep(Duration::from_millis(10)));
    let first = runtime();
    first.block_on(poll_fn(|cx| {
        assert!(sleep.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    // Two of them on one thread have lists of their own.
    let second = runtime();
    second.block_on(super::sleep(Duration::from_millis(1)));
    drop(first);
    second.block_on(sleep);
    thread::spawn(move || second.block_on(super::sleep(Duration::from_millis(1)))).join().expect("no panic");
}
