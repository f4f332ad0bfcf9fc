//! A terminal whose screen this program has for itself, and gives back as it was.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::frame::{Frame, Size};

/// The terminal, until it is dropped: its other screen, without a cursor, and keys without echo.
pub(super) struct Screen {
    /// How it was, if keys can be read from it.
    before: Option<Termios>,
    /// A `q` was typed.
    quit: Arc<Notify>,
    ends: Vec<Signal>,
    resizes: Signal,
}

pub(super) enum Key {
    Quit,
    Resized,
}

/// The other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let ends = ends.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
        let resizes = signal(SignalKind::window_change())?;
        let mut screen = Self { before: None, quit: Arc::default(), ends, resizes };
        if io::stdin().is_terminal() {
            let before = tcgetattr(io::stdin())?;
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            // A stopped program would leave this screen to the shell.
            quiet.special_codes[SpecialCodeIndex::VSUSP] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
            screen.before = Some(before);
            let quit = Arc::clone(&screen.quit);
            // A read of a terminal cannot be given up. The thread ends with the program.
            thread::Builder::new().spawn(move || read_keys(&quit))?;
        }
        write!(io::stdout(), "{ENTER}")?;
        io::stdout().flush()?;
        Ok(screen)
    }

    pub(super) fn show(&mut self, frame: &Frame) -> io::Result<()> {
        let text = frame.text(Size::of_terminal());
        let mut drawn = String::from("\x1b[H");
        for line in text.lines() {
            drawn.push_str(line);
            // To the end of the line; without a line feed after the last, which would scroll.
            drawn.push_str("\x1b[K\r\n");
        }
        drawn.truncate(drawn.len().saturating_sub("\r\n".len()));
        drawn.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(drawn.as_bytes())?;
        out.flush()
    }

    /// The next key that means anything, or signal.
    pub(super) async fn key(&mut self) -> Key {
        let Self { quit, ends, resizes, .. } = self;
        tokio::select! {
            () = ended(ends) => Key::Quit,
            _ = resizes.recv() => Key::Resized,
            () = quit.notified() => Key::Quit,
        }
    }

    /// Ends when the program should.
    pub(super) async fn quit(&mut self) {
        let Self { quit, ends, .. } = self;
        tokio::select! {
            () = ended(ends) => {}
            () = quit.notified() => {}
        }
    }

    /// Gives the terminal back, before anything else is written to it.
    pub(super) fn close(self) {
        drop(self);
    }
}

async fn ended(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| {
        let any = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Until a `q` is typed, or the terminal is gone.
fn read_keys(quit: &Notify) {
    let mut typed = [0; 64];
    loop {
        match rustix::io::read(io::stdin(), &mut typed) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(count @ 1..) if !typed[..count].iter().any(|key| matches!(key, b'q' | b'Q')) => {}
            Ok(_) | Err(_) => return quit.notify_one(),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = write!(io::stdout(), "{LEAVE}");
        let _ = io::stdout().flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
