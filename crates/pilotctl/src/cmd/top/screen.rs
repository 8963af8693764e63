//! The terminal: keys in, pictures out, and as it was at the end.

use std::io;
use std::time::{Duration, Instant};

use pilot_client::{Client, NodeId};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::board::{Board, Details, Key, Wish};
use super::reading::Reading;
use super::view::{self, Theme};
use crate::cmd::why;
use crate::failure::Failure;
use crate::process;

/// How often the thread that reads keys looks whether anybody still wants them.
const GLANCE: Duration = Duration::from_millis(200);

/// Keys that wait to be looked at.
const KEYS_MAX: usize = 16;

/// Draws until somebody has seen enough.
pub(super) async fn run(
    client: Client,
    first: Reading,
    begun: Instant,
    every: Duration,
) -> Result<(), Failure> {
    let asked_to_end = process::asked_to_end();
    tokio::pin!(asked_to_end);
    let mut live = Live { client, begun, board: Board::default() };
    live.board.take(first);
    let mut screen = Screen::open()?;
    let mut inputs = inputs();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        screen.draw(&live.board)?;
        tokio::select! {
            input = inputs.recv() => match input {
                Some(Input::Key(key)) => match live.board.press(key) {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(()),
                    Wish::Details(node) => live.look_into(node).await,
                },
                Some(Input::Resized) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = ticks.tick() => live.refresh().await,
            () = &mut asked_to_end => return Ok(()),
        }
    }
}

struct Live {
    client: Client,
    begun: Instant,
    board: Board,
}

impl Live {
    /// Asks the daemon anew; one that was started again is another one on the same socket.
    async fn refresh(&mut self) {
        if self.board.paused {
            return;
        }
        if !self.client.is_connected()
            && let Ok(client) = self.client.reconnect().await
        {
            self.client = client;
        }
        match Reading::take(&self.client, self.begun.elapsed()).await {
            Ok(reading) => self.board.take(reading),
            Err(failure) => self.board.notice = Some(format!("{}; trying again", failure.message)),
        }
    }

    /// What is known of a peer, without asking anybody but the daemon.
    async fn look_into(&mut self, node: NodeId) {
        match self.client.why(node, Duration::ZERO).await {
            Ok(found) => {
                let rows =
                    why::brief(&found).into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
                self.board.details = Some(Details { title: found.summary, rows });
            }
            Err(error) => self.board.notice = Some(error.to_string()),
        }
    }
}

/// The terminal in raw mode, on its second page. It is put back when this is dropped, and when the program panics.
struct Screen {
    terminal: DefaultTerminal,
    theme: Theme,
}

impl Screen {
    fn open() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| Failure::io("opening the terminal", &error))?;
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { terminal, theme: Theme { colour } })
    }

    fn draw(&mut self, board: &Board) -> Result<(), Failure> {
        let theme = self.theme;
        let drawn = self.terminal.draw(|frame| view::draw(frame, board, theme));
        drawn.map(drop).map_err(|error| Failure::io("drawing", &error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What happens at the keyboard and to the window.
enum Input {
    Key(Key),
    Resized,
}

/// Reads keys on a thread of its own: reading blocks. The channel ends when the terminal does.
fn inputs() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match next_input() {
                Ok(Some(input)) => {
                    if sender.blocking_send(input).is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

fn next_input() -> io::Result<Option<Input>> {
    if !event::poll(GLANCE)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => meaning(key).map(Input::Key),
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => None,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing here")]
fn meaning(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Esc => Key::Back,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('p') => Key::Pause,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Enter => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_last_line_says_and_ctrl_c_ends() {
        let plain = |code| meaning(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
        assert_eq!(plain(KeyCode::Char('s')), Some(Key::Sort));
        assert_eq!(plain(KeyCode::Enter), Some(Key::Enter));
        assert_eq!(plain(KeyCode::Char('c')), None);
        assert_eq!(meaning(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Key::Quit));
    }
}
