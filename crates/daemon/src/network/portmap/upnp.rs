//! UPnP Internet Gateway Device: found by SSDP, described in XML, told by SOAP.
//!
//! Only the default gateway is listened to: an answer from another host, or one that leads to another host, is none.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use roxmltree::{Document, Node, ParsingOptions};

use super::http::{self, Url};

/// Elements in a description or an answer, at most.
const NODES_MAX: u32 = 10_000;

/// What is looked for. A device of version 2 answers both.
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// The services that map ports, the better first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The error of a gateway that knows no mappings with an end.
const ONLY_PERMANENT: u16 = 725;

/// Errors of a port that another host has.
const CONFLICTS: [u16; 2] = [718, 729];

/// The questions "is there a gateway?", to be sent to one address.
pub(super) fn searches(host: SocketAddr) -> impl Iterator<Item = String> {
    DEVICES.into_iter().map(move |device| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {device}\r\n\r\n"
        )
    })
}

/// Where the description of a gateway is, from its answer to a search.
pub(super) fn location(datagram: &[u8], gateway: IpAddr) -> Option<Url> {
    let text = str::from_utf8(datagram).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return None;
    }
    let headers = lines.filter_map(|line| line.split_once(':'));
    let value = |wanted: &str| {
        let mut found = headers.clone().filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        found.next().map(|(_, value)| value.trim())
    };
    if !DEVICES.contains(&value("ST")?) {
        return None;
    }
    Url::parse(value("LOCATION")?).filter(|url| url.server.ip() == gateway)
}

/// Why a gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("UPnP: {0}")]
    Io(#[from] io::Error),
    #[error("UPnP: the gateway's description is unusable: {0}")]
    Description(&'static str),
    #[error("UPnP: the gateway's answer is unusable")]
    Answer,
    #[error("UPnP: the gateway has no address of its own")]
    NoAddress,
    #[error("UPnP: error {0}{1}")]
    Refused(u16, String),
}

/// The service of a gateway that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    url: Url,
    kind: &'static str,
}

impl Service {
    /// Reads the description.
    pub(super) async fn find(location: &Url) -> Result<Self, Failure> {
        let answer = http::get(location).await?;
        if answer.status != 200 {
            return Err(Failure::Description("it is not there"));
        }
        Self::in_description(&answer.body, location)
    }

    fn in_description(text: &str, location: &Url) -> Result<Self, Failure> {
        let document = parse(text).ok_or(Failure::Description("it is no XML"))?;
        let services: Vec<_> = document.descendants().filter(|node| is(*node, "service")).collect();
        let of_kind = |kind: &'static str| {
            let of_kind = |node: &Node<'_, '_>| child(*node, "serviceType") == Some(kind);
            let control =
                services.iter().filter(|node| of_kind(node)).find_map(|node| child(*node, "controlURL"))?;
            Some((kind, control))
        };
        let (kind, control) = SERVICES
            .into_iter()
            .find_map(of_kind)
            .ok_or(Failure::Description("it has no service that maps ports"))?;
        let base = document.descendants().find(|node| is(*node, "URLBase")).and_then(|node| node.text());
        let base = base.and_then(|text| Url::parse(text.trim())).unwrap_or_else(|| location.clone());
        let url = base.join(control).filter(|url| url.server.ip() == location.server.ip());
        Ok(Self { url: url.ok_or(Failure::Description("it leads to another host"))?, kind })
    }

    /// The address that the world sees.
    pub(super) async fn external_address(&self) -> Result<Ipv4Addr, Failure> {
        let answer = self.call("GetExternalIPAddress", &[]).await?;
        let document = parse(&answer).ok_or(Failure::Answer)?;
        let found = document.descendants().find(|node| is(*node, "NewExternalIPAddress"));
        let text = found.and_then(|node| node.text()).map(str::trim).ok_or(Failure::NoAddress)?;
        let ip: Ipv4Addr = text.parse().map_err(|_| Failure::NoAddress)?;
        if ip.is_unspecified() { Err(Failure::NoAddress) } else { Ok(ip) }
    }

    /// Maps `external` to `inside`. Returns the lifetime: `None` if the gateway knows mappings without an end only.
    pub(super) async fn map(
        &self,
        external: u16,
        inside: SocketAddr,
        lifetime: u32,
    ) -> Result<Option<u32>, Failure> {
        match self.add(external, inside, lifetime).await {
            Ok(()) => Ok(Some(lifetime)),
            Err(Failure::Refused(ONLY_PERMANENT, _)) => self.add(external, inside, 0).await.map(|()| None),
            Err(failure) => Err(failure),
        }
    }

    async fn add(&self, external: u16, inside: SocketAddr, lifetime: u32) -> Result<(), Failure> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "UDP".to_owned()),
            ("NewInternalPort", inside.port().to_string()),
            ("NewInternalClient", inside.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", "pilot".to_owned()),
            ("NewLeaseDuration", lifetime.to_string()),
        ];
        self.call("AddPortMapping", &arguments).await.map(drop)
    }

    /// Ends a mapping.
    pub(super) async fn unmap(&self, external: u16) -> Result<(), Failure> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", "UDP".to_owned()),
        ];
        self.call("DeletePortMapping", &arguments).await.map(drop)
    }

    async fn call(&self, action: &str, arguments: &[(&str, String)]) -> Result<String, Failure> {
        let kind = self.kind;
        // Every value is a number, an address or a word of ours: nothing needs escaping.
        let arguments = arguments.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = write!(text, "<{name}>{value}</{name}>");
            text
        });
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{kind}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let answer = http::post(&self.url, &format!("{kind}#{action}"), &body).await?;
        match answer.status {
            200 => Ok(answer.body),
            _ => Err(refusal(&answer.body).unwrap_or(Failure::Answer)),
        }
    }
}

impl Failure {
    /// Another port may do.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(code, _) if CONFLICTS.contains(code))
    }
}

fn refusal(body: &str) -> Option<Failure> {
    let document = parse(body)?;
    let fault = document.descendants().find(|node| is(*node, "UPnPError"))?;
    let code = child(fault, "errorCode")?.parse().ok()?;
    let words = child(fault, "errorDescription").unwrap_or_default();
    // It is shown to people and must not fill their screen, or steer it.
    let words: String = words.chars().filter(|c| !c.is_control()).take(80).collect();
    let words = if words.is_empty() { words } else { format!(" ({words})") };
    Some(Failure::Refused(code, words))
}

fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text.trim(), options).ok()
}

/// Gateways are careless with namespaces; the local name decides.
fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn child<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.children().find(|node| is(*node, name))?.text().map(str::trim)
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str, gateway: IpAddr) {
    let location = Url { server: SocketAddr::new(gateway, 5000), path: "/desc.xml".to_owned() };
    if let Ok(service) = Service::in_description(text, &location) {
        assert_eq!(service.url.server.ip(), gateway, "led elsewhere");
    }
    if let Some(Failure::Refused(_, words)) = refusal(text) {
        assert!(words.chars().count() <= 83 && !words.contains(char::is_control), "{words:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

    fn answer(location: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {}\r\nEXT:\r\nLocation: {location}\r\n\r\n",
            DEVICES[0]
        )
    }

    #[test]
    fn only_an_answer_that_leads_to_the_gateway_counts() {
        let found = |text: &str| location(text.as_bytes(), GATEWAY);
        let expected = Url::parse("http://192.168.1.1:5000/rootDesc.xml");
        assert_eq!(found(&answer("http://192.168.1.1:5000/rootDesc.xml")), expected);
        assert_eq!(found(&answer("http://192.168.1.66:5000/rootDesc.xml")), None);
        assert_eq!(found(&answer("http://192.168.1.1/").replace("200 OK", "404 No")), None);
        assert_eq!(
            found(&answer("http://192.168.1.1/").replace("InternetGatewayDevice", "MediaServer")),
            None
        );
        assert_eq!(location(&[0xFF; 40], GATEWAY), None);
        let whole = answer("http://192.168.1.1:5000/rootDesc.xml");
        for length in 0..whole.len() {
            // Whatever is cut off, it leads nowhere else.
            assert!(found(&whole[..length]).is_none_or(|url| url.server.ip() == GATEWAY));
        }
    }

    fn description(base: &str, control: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device><deviceList><device>\
             <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
             <controlURL>/wrong</controlURL></service><service><serviceType> {} </serviceType>\
             <controlURL>{control}</controlURL></service></serviceList></device></deviceList></device></root>",
            SERVICES[1]
        )
    }

    #[test]
    fn the_service_is_found_in_the_description_of_its_device() {
        let location = Url::parse("http://192.168.1.1:5000/a/rootDesc.xml").unwrap();
        let service =
            |base: &str, control: &str| Service::in_description(&description(base, control), &location);
        let path = |base: &str, control: &str| service(base, control).unwrap().url.path;
        assert_eq!(path("", "/ctl/IPConn"), "/ctl/IPConn");
        assert_eq!(path("", "ctl/IPConn"), "/a/ctl/IPConn");
        assert_eq!(path("<URLBase>http://192.168.1.1:49152/b/</URLBase>", "c"), "/b/c");
        for (base, control) in [
            ("<URLBase>http://192.168.1.66/</URLBase>", "/ctl"),
            ("", "http://192.168.1.66/ctl"),
            ("", "http://metadata.internal/ctl"),
        ] {
            assert!(matches!(service(base, control), Err(Failure::Description(_))), "{base}{control}");
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let location = Url::parse("http://192.168.1.1:5000/").unwrap();
        let laughs = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><root>&a;</root>";
        let deep = "<a>".repeat(20_000);
        let wide = format!("<a>{}</a>", "<b/>".repeat(20_000));
        for text in ["", "<root>", laughs, &deep, &wide, "<root/>"] {
            assert!(Service::in_description(text, &location).is_err());
        }
        let whole = description("", "/ctl");
        for length in 0..whole.len() {
            assert!(Service::in_description(&whole[..length], &location).is_err());
        }
    }

    #[test]
    fn a_refusal_is_read_and_cannot_draw_on_the_screen() {
        let body = "<s:Envelope xmlns:s=\"x\"><s:Body><s:Fault><detail><UPnPError xmlns=\"y\"><errorCode>718</errorCode>\
            <errorDescription>Conflict\u{7}InMapping</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>";
        assert!(refusal(body).is_none(), "a control character is no XML");
        let failure = refusal(&body.replace('\u{7}', "\u{9b}")).unwrap();
        assert_eq!(failure.to_string(), "UPnP: error 718 (ConflictInMapping)");
        assert!(failure.is_conflict());
    }
}
