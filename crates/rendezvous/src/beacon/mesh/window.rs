//! Which counters have been seen.

/// The last counters of a sender.
#[derive(Debug, Default)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n`: the counter `highest - n` was seen.
    seen: u128,
}

impl Window {
    /// Whether this counter comes for the first time; one that is long past does not.
    pub(super) fn admits(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.seen =
                u32::try_from(ahead).ok().and_then(|ahead| self.seen.checked_shl(ahead)).unwrap_or(0) | 1;
            self.highest = counter;
            return true;
        }
        let Some(bit) = u32::try_from(self.highest - counter).ok().and_then(|back| 1_u128.checked_shl(back))
        else {
            return false;
        };
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_admitted_once_in_whatever_order_within_reach() {
        let mut window = Window::default();
        let order = [1, 2, 5, 3, 4, 200, 190, 73, 5000];
        assert!(order.iter().all(|counter| window.admits(*counter)));
        assert!(order.iter().all(|counter| !window.admits(*counter)));
        assert!(!window.admits(4872), "out of reach");
        assert!(window.admits(4873));
    }
}
