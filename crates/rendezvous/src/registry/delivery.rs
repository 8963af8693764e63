//! Items that wait for a node until it has surely received them.
//!
//! A poll that drains the inbox loses what was in it when the reply is lost (spec/registry.md 23 D5). So an item that
//! was handed out stays until the client sends its next request on the same connection, which it does only after
//! reading the reply; if the connection ends before, the item is handed out again.

use super::ConnId;

/// Times an item is handed out without a sign of receipt. A client that uses each connection once never gives one.
const HAND_OUTS_MAX: u8 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item<T> {
    pub(super) content: T,
    handed_out: u8,
    to: Option<ConnId>,
}

impl<T> Item<T> {
    pub(super) fn new(content: T) -> Self {
        Self { content, handed_out: 0, to: None }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.to.is_none()
    }
}

/// `contents` as items. Those that are among `before` keep their marks. True if there is something new.
pub(super) fn renewed<T: PartialEq>(mut before: Vec<Item<T>>, contents: Vec<T>) -> (Vec<Item<T>>, bool) {
    let mut is_new = false;
    let renewed =
        contents.into_iter().map(|content| match before.iter().position(|item| item.content == content) {
            Some(at) => before.swap_remove(at),
            None => {
                is_new = true;
                Item::new(content)
            }
        });
    (renewed.collect(), is_new)
}

/// Marks everything that waits as handed out on `conn`, and returns it.
pub(super) fn hand_out<T: Clone>(items: &mut [Item<T>], conn: ConnId) -> Vec<T> {
    let waiting = items.iter_mut().filter(|item| item.is_waiting());
    waiting
        .map(|item| {
            item.to = Some(conn);
            item.handed_out += 1;
            item.content.clone()
        })
        .collect()
}

/// Drops what was handed out on `conn`. True if there was something.
pub(super) fn received<T>(items: &mut Vec<Item<T>>, conn: ConnId) -> bool {
    let before = items.len();
    items.retain(|item| item.to != Some(conn));
    items.len() != before
}

/// Lets what was handed out on `conn` wait again, unless that was tried often enough. True if something was dropped.
pub(super) fn lost<T>(items: &mut Vec<Item<T>>, conn: ConnId) -> bool {
    let before = items.len();
    items.retain_mut(|item| {
        if item.to == Some(conn) {
            item.to = None;
            return item.handed_out < HAND_OUTS_MAX;
        }
        true
    });
    items.len() != before
}
