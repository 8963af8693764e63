//! Sequence numbers: 32 bits that wrap, compared by serial arithmetic (RFC 1982).

use std::{
    fmt,
    ops::{Add, AddAssign, Sub},
};

/// A position in a byte stream.
///
/// There is no `Ord`: which of two numbers is later depends on their distance, which must be below 2^31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// True if `self` is later than `other`. At a distance of exactly 2^31 neither is later.
    pub fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// True if `self` is later than `other` or the same.
    pub fn is_at_or_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() >= 0
    }

    /// True if `self` is earlier than `other`.
    pub fn is_before(self, other: Self) -> bool {
        other.is_after(self)
    }

    /// The later of the two; `self` if neither is later.
    pub fn later_of(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, distance: u32) -> Self {
        Self(self.0.wrapping_add(distance))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, distance: u32) {
        *self = *self + distance;
    }
}

impl Sub for Seq {
    type Output = u32;

    /// The distance from `earlier` up to `self`, wrapping.
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, distance: u32) -> Self {
        Self(self.0.wrapping_sub(distance))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
