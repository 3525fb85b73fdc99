//! `barewire top`: the overview of a server, refreshed in the terminal.

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue, style};

use super::{ServerArgs, rated};
use crate::operate::control::Connection;
use crate::operate::overview::Overview;

/// Arguments of `barewire top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// How often to look
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..))]
    interval_ms: u64,

    /// End after so many pages [default: q ends it]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Shows how a server is until q is pressed, or the server has ended. Where there is no
/// terminal, one page follows the other.
///
/// # Errors
///
/// If there is no server, or it does not answer.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let (path, connection) = args.server.connect()?;
    let interval = Duration::from_millis(args.interval_ms);
    let mut screen = Screen::open()?;
    let mut before = connection.status()?;
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        if screen.wait(interval)? == Wish::Leave {
            return Ok(ExitCode::SUCCESS);
        }
        let after = Connection::open(&path)?.status()?;
        let status = rated(&before, after);
        match screen.show(&Overview(&status).to_string()) {
            // The reader has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            shown => shown?,
        }
        before = status;
        shown += 1;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stay,
    Leave,
}

/// The terminal, which is as it was when this is dropped, or whatever stdout is.
enum Screen {
    Terminal,
    Plain,
}

impl Screen {
    fn open() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Ok(Screen::Plain);
        }
        terminal::enable_raw_mode()?;
        // Dropped, and so undone, if the next step fails.
        let screen = Screen::Terminal;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn show(&mut self, page: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Screen::Plain => writeln!(out, "{page}")?,
            Screen::Terminal => {
                let (width, height) = terminal::size()?;
                queue!(out, cursor::MoveTo(0, 0))?;
                for line in page.lines().take(usize::from(height.saturating_sub(1))) {
                    let line: String = line.chars().take(width.into()).collect();
                    queue!(
                        out,
                        style::Print(line),
                        Clear(ClearType::UntilNewLine),
                        cursor::MoveToNextLine(1)
                    )?;
                }
                queue!(out, Clear(ClearType::FromCursorDown))?;
            }
        }
        out.flush()
    }

    /// Waits for so long, or until the user ends it.
    fn wait(&mut self, interval: Duration) -> io::Result<Wish> {
        if let Screen::Plain = self {
            thread::sleep(interval);
            return Ok(Wish::Stay);
        }
        let until = Instant::now() + interval;
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            if is_quit(&event::read()?) {
                return Ok(Wish::Leave);
            }
        }
        Ok(Wish::Stay)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Screen::Terminal = self {
            // The error cannot be shown any more.
            let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
            let _ = terminal::disable_raw_mode();
        }
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
