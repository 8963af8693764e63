//! How the board looks on a terminal of 80 by 24 or more.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::board::{Board, Details, PeerRow, StreamRow};

const KEYS: &str = "q quit  s sort  p pause  ↑↓ select  Enter details";

const PEER_WIDTHS: [Constraint; 7] = [
    Constraint::Fill(1),
    Constraint::Length(16),
    Constraint::Length(6),
    Constraint::Length(10),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(7),
];

const STREAM_WIDTHS: [Constraint; 7] = [
    Constraint::Fill(1),
    Constraint::Length(13),
    Constraint::Length(11),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(7),
];

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    pub(super) colour: bool,
}

impl Theme {
    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, theme: Theme) {
    let [head, peers, streams, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, board, theme);
    draw_peers(frame, peers, board, theme);
    match &board.details {
        Some(details) => draw_details(frame, streams, details, theme),
        None => draw_streams(frame, streams, board, theme),
    }
    let state = if board.paused { "paused" } else { "" };
    frame.render_widget(Paragraph::new(KEYS).style(theme.of(Color::DarkGray)), foot);
    frame.render_widget(Paragraph::new(state).alignment(Alignment::Right).style(bold()), foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, board: &Board, theme: Theme) {
    let shown = &board.shown;
    let rendezvous = &shown.rendezvous;
    let is_well = rendezvous.registered && rendezvous.beacon_answers != Some(false);
    let colour = if is_well { Color::Green } else { Color::Red };
    let mut lines = vec![
        Line::styled(shown.node.line(), bold()),
        Line::styled(rendezvous.line(), theme.of(colour)),
        Line::from(shown.totals.traffic()),
        Line::from(shown.totals.queues()),
    ];
    if let Some(notice) = &board.notice {
        lines.push(Line::styled(notice.clone(), theme.of(Color::Red).add_modifier(Modifier::BOLD)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, board: &Board, theme: Theme) {
    let mut headings = PeerRow::HEADINGS.map(str::to_owned);
    headings[board.sort.column()].insert(0, '▾');
    let rows = board.shown.peers.iter().map(|row| {
        let [name, address, path, rtt, incoming, outgoing, heard] = row.cells();
        let way = if row.path == "relay" { theme.of(Color::Yellow) } else { Style::new() };
        Row::new([
            Cell::from(name),
            Cell::from(address),
            Cell::from(path).style(way),
            right(rtt),
            right(incoming),
            right(outgoing),
            right(heard),
        ])
    });
    let [name, address, path, numbers @ ..] = headings;
    let heading = [name, address, path].map(Cell::from).into_iter().chain(numbers.map(right));
    let table = Table::new(rows, PEER_WIDTHS)
        .header(Row::new(heading).style(heading_style(theme)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(board.place());
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_streams(frame: &mut Frame<'_>, area: Rect, board: &Board, theme: Theme) {
    let streams = &board.shown.streams;
    // The heading takes a row, and the last one says how many there was no room for.
    let room = usize::from(area.height).saturating_sub(1);
    let fitting = if streams.len() > room { room.saturating_sub(1) } else { streams.len() };
    let mut rows: Vec<Row<'_>> = streams.iter().take(fitting).map(stream_row).collect();
    if fitting < streams.len() {
        rows.push(Row::new([format!("… {} more", streams.len() - fitting)]));
    }
    let [name, ports, state, numbers @ ..] = StreamRow::HEADINGS.map(str::to_owned);
    let heading = [name, ports, state].map(Cell::from).into_iter().chain(numbers.map(right));
    let table = Table::new(rows, STREAM_WIDTHS).header(Row::new(heading).style(heading_style(theme)));
    frame.render_widget(table, area);
}

fn stream_row(row: &StreamRow) -> Row<'static> {
    let [name, ports, state, numbers @ ..] = row.cells();
    Row::new([name, ports, state].map(Cell::from).into_iter().chain(numbers.map(right)))
}

fn draw_details(frame: &mut Frame<'_>, area: Rect, details: &Details, theme: Theme) {
    let lines: Vec<Line<'_>> = details
        .rows
        .iter()
        .map(|(name, text)| {
            Line::from(vec![
                Span::styled(format!("{name:<10} "), theme.of(Color::DarkGray)),
                Span::from(text.as_str()),
            ])
        })
        .collect();
    let block = Block::bordered().title(format!(" {} ", details.title));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn heading_style(theme: Theme) -> Style {
    theme.of(Color::Cyan).add_modifier(Modifier::BOLD)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::board::Key;
    use super::super::board::tests::reading;
    use super::*;

    fn drawn(board: &Board, (width, height): (u16, u16), colour: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board, Theme { colour })).unwrap();
        terminal
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.take(reading(10, 0));
        board.take(reading(12, 500_000));
        board
    }

    #[test]
    fn a_small_terminal_shows_peers_streams_totals_and_keys() {
        insta::assert_snapshot!(drawn(&board(), (80, 24), true).backend());
    }

    #[test]
    fn the_details_of_a_peer_take_the_place_of_the_streams() {
        let mut board = board();
        board.press(Key::Sort);
        board.press(Key::Pause);
        board.notice = Some("the daemon does not answer; trying again".to_owned());
        let row = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        board.details = Some(Details {
            title: "agent-b".to_owned(),
            rows: vec![row("path", "direct to 192.0.2.7:513 · 1.20 ms"), row("trust", "trusted")],
        });
        insta::assert_snapshot!(drawn(&board, (100, 24), true).backend());
    }

    #[test]
    fn streams_that_do_not_fit_are_counted() {
        let mut now = reading(10, 0);
        now.streams = vec![now.streams[0].clone(); 40];
        let mut board = Board::default();
        board.take(now);
        let screen = drawn(&board, (80, 24), true).backend().to_string();
        assert!(screen.contains("… 33 more"), "{screen}");
    }

    #[test]
    fn a_tiny_terminal_is_no_reason_to_fail() {
        for size in [(1, 1), (10, 3), (40, 5)] {
            drawn(&board(), size, true);
        }
    }

    #[test]
    fn without_colour_no_cell_has_one() {
        let has_colour = |colour| {
            let terminal = drawn(&board(), (80, 24), colour);
            terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(has_colour(true) && !has_colour(false));
    }
}
