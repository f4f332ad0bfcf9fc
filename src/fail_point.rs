//! Points at which a test stops this process, to kill it or something else.
//!
//! They exist only in builds with the feature `fail-points`. There, `ONLYONCE_FAIL_POINT` names a step, and
//! `ONLYONCE_FAIL_POINT_ADDR` an address. When the step is reached for the first time, the process connects to the
//! address, writes the name of the step on a line, and waits for a byte: to go on, or to panic (`!`).

/// A step of the protocol, in the order in which a request takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The store has not been asked yet.
    BeforeClaim,
    /// The claim was granted.
    AfterClaim,
    /// There is a connection, and nothing has been sent.
    BeforeSend,
    /// The head of the response was read.
    HeadRead,
    /// The attempt has ended, and its outcome is not recorded.
    BeforeComplete,
    /// The outcome is recorded, and no client has the response.
    AfterComplete,
    /// The response has reached the task that serves the client.
    BeforeAnswer,
    /// The backend is to be asked what became of an attempt.
    BeforeProbe,
    /// The backend has answered, and the record has not changed.
    BeforeProbeExchange,
    /// The record has changed by what a probe has brought.
    AfterProbeExchange,
}

/// Does nothing, and costs nothing.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub(crate) async fn reach(_step: Step) {}

/// Stops here if this is the configured step, at the first time.
#[cfg(feature = "fail-points")]
pub(crate) async fn reach(step: Step) {
    armed::reach(step).await;
}

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::Step;

    struct Point {
        step: String,
        address: String,
        reached: AtomicBool,
    }

    static POINT: LazyLock<Option<Point>> = LazyLock::new(|| {
        let step = std::env::var("ONLYONCE_FAIL_POINT").ok()?;
        let address = std::env::var("ONLYONCE_FAIL_POINT_ADDR").ok()?;
        Some(Point { step, address, reached: AtomicBool::new(false) })
    });

    pub(super) async fn reach(step: Step) {
        let Some(point) = &*POINT else { return };
        if point.step == name(step) && !point.reached.swap(true, Ordering::Relaxed) {
            let word = stop(point).await.expect("a test listens at ONLYONCE_FAIL_POINT_ADDR");
            assert!(word != b'!', "a test asked for a panic at {}", point.step);
        }
    }

    async fn stop(point: &Point) -> std::io::Result<u8> {
        let mut test = TcpStream::connect(&point.address).await?;
        test.write_all(format!("{}\n", point.step).as_bytes()).await?;
        test.read_u8().await
    }

    fn name(step: Step) -> &'static str {
        match step {
            Step::BeforeClaim => "before-claim",
            Step::AfterClaim => "after-claim",
            Step::BeforeSend => "before-send",
            Step::HeadRead => "head-read",
            Step::BeforeComplete => "before-complete",
            Step::AfterComplete => "after-complete",
            Step::BeforeAnswer => "before-answer",
            Step::BeforeProbe => "before-probe",
            Step::BeforeProbeExchange => "before-probe-exchange",
            Step::AfterProbeExchange => "after-probe-exchange",
        }
    }
}
