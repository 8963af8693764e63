//! The network from which addresses are taken.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// `10.4.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    first: u32,
    bits: u32,
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network; write 10.4.0.0/16, with 8 to 30 bits");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(wrong)?;
        let first = u32::from(address) & u32::MAX << (32 - bits);
        Ok(Self { first, bits })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

impl Subnet {
    /// Its addresses, from `.0.1` on; neither its first nor its last, which mean all.
    pub(crate) fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let last = self.first | !(u32::MAX << (32 - self.bits));
        (self.first + 1..last).map(Ipv4Addr::from)
    }

    /// Whether an address may be given.
    pub(crate) fn has(self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        let last = self.first | !(u32::MAX << (32 - self.bits));
        self.first < ip && ip < last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_from_the_first_on_and_stay_inside() {
        let subnet: Subnet = "10.4.7.9/30".parse().unwrap();
        assert_eq!(subnet.to_string(), "10.4.7.8/30");
        let all: Vec<String> = subnet.addresses().map(|ip| ip.to_string()).collect();
        assert_eq!(all, ["10.4.7.9", "10.4.7.10"]);
        assert!(subnet.has([10, 4, 7, 10].into()) && !subnet.has([10, 4, 7, 11].into()));
        assert!(!subnet.has([10, 4, 7, 8].into()) && !subnet.has([10, 5, 7, 9].into()));
        for text in ["10.4.0.0", "10.4.0.0/31", "10.4.0.0/7", "10.4.0/16", "x/16", "10.4.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
