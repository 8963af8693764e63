//! Gateways of every kind, on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::super::Routes;
use super::super::routes::Gateway;
use super::*;

/// Nothing here takes long; this only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(20);

const INSIDE: u16 = 4000;
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), INSIDE);

/// What a fake gateway does with a request on its control port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Silent,
    Pcp,
    NatPmp,
    Refuses,
}

/// What all of them know.
#[derive(Debug)]
struct Table {
    control: Control,
    /// Whether the UPnP service knows mappings with an end, and whether it takes any.
    leases: bool,
    upnp: bool,
    external: Ipv4Addr,
    lifetime: u32,
    /// Outside port to inside port.
    mapped: BTreeMap<u16, u16>,
    taken: Vec<u16>,
    requests: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            control: Control::Silent,
            leases: true,
            upnp: false,
            external: [203, 0, 113, 9].into(),
            lifetime: 3600,
            mapped: BTreeMap::new(),
            taken: Vec::new(),
            requests: 0,
        }
    }
}

type Shared = Arc<Mutex<Table>>;

/// A fake gateway at 127.0.0.1 and the part that asks it.
struct Scene {
    table: Shared,
    gateway: Arc<UdpSocket>,
    seen: watch::Sender<Surroundings>,
    inbox: mpsc::Receiver<Command>,
    portmap: PortMap,
}

fn surroundings(gateway: [u8; 4]) -> Surroundings {
    let gateway = Gateway { ip: gateway.into(), interface: "lo".to_owned() };
    Surroundings { interfaces: Vec::new(), routes: Routes { gateway: Some(gateway), ..Routes::default() } }
}

/// The gateway's address is taken as given, and this host's is that of loopback.
fn on_loopback(here: &Surroundings, _listen: SocketAddr) -> Result<Target, &'static str> {
    let gateway = here.routes.gateway.as_ref().ok_or("there is no gateway")?.ip;
    Ok(Target { gateway, client: Ipv4Addr::LOCALHOST })
}

impl Scene {
    async fn of(table: Table) -> Self {
        Self::with(table, |_| {}).await
    }

    async fn with(table: Table, change: impl FnOnce(&mut Settings)) -> Self {
        let table = Arc::new(Mutex::new(table));
        let control = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let search = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings {
            target: on_loopback,
            control: control.local_addr().unwrap().port(),
            search: search.local_addr().unwrap().port(),
            search_group: None,
            announcements: free_port().await,
            tries: vec![Duration::from_millis(100)],
            search_wait: Duration::from_millis(200),
            calm: Duration::ZERO,
            ..Settings::new(ANYWHERE)
        };
        change(&mut settings);
        tokio::spawn(serve_control(Arc::clone(&control), Arc::clone(&table)));
        tokio::spawn(serve_search(search, web.local_addr().unwrap(), Arc::clone(&table)));
        tokio::spawn(serve_web(web, Arc::clone(&table)));
        let (seen, watched) = watch::channel(surroundings([127, 0, 0, 1]));
        let (driver, inbox) = mpsc::channel(64);
        let portmap = PortMap::start_with(settings, watched, driver).unwrap();
        Self { table, gateway: control, seen, inbox, portmap }
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.lock().unwrap());
    }

    /// The next state that is not the first one, "asking".
    async fn next(&mut self) -> Mapping {
        loop {
            let command = timeout(PATIENCE, self.inbox.recv()).await.expect("news").unwrap();
            let Command::Network(News::Mapping(mapping)) = command else { panic!("other news") };
            if mapping.state != MappingState::Asking {
                return mapping;
            }
        }
    }

    /// Waits until a mapping of this address is shown.
    async fn mapped_to(&mut self, external: &str) -> Mapping {
        loop {
            let mapping = self.next().await;
            if mapping.external == Some(external.parse().unwrap()) {
                return mapping;
            }
        }
    }

    fn in_table(&self) -> Vec<(u16, u16)> {
        self.table.lock().unwrap().mapped.iter().map(|(outside, inside)| (*outside, *inside)).collect()
    }
}

async fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn serve_control(socket: Arc<UdpSocket>, table: Shared) {
    let mut bytes = [0; 1100];
    while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
        let answer = control(&mut table.lock().unwrap(), &bytes[..length]);
        if let Some(answer) = answer {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

fn control(table: &mut Table, request: &[u8]) -> Option<Vec<u8>> {
    table.requests += 1;
    let two = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
    let four = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
    let mut settle = |outside: u16, inside: u16, lifetime: u32| {
        if lifetime == 0 {
            table.mapped.retain(|_, mapped| *mapped != inside);
            return (outside, 0);
        }
        let outside = if table.taken.contains(&outside) { outside + 1 } else { outside };
        table.mapped.insert(outside, inside);
        (outside, table.lifetime)
    };
    match (table.control, request[0]) {
        (Control::Silent, _) => None,
        (Control::Pcp, 2) => {
            assert_eq!(request[8..24], Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(), "the client's address");
            let (outside, lifetime) = settle(two(42), two(40), four(4));
            let mut answer = request.to_vec();
            answer[1] |= 0x80;
            answer[4..8].copy_from_slice(&lifetime.to_be_bytes());
            answer[42..44].copy_from_slice(&outside.to_be_bytes());
            answer[44..60].copy_from_slice(&table.external.to_ipv6_mapped().octets());
            Some(answer)
        }
        (Control::NatPmp, 2) => Some(vec![0, 0x80 | request[1], 0, 1, 0, 0, 0, 1]),
        (Control::NatPmp, 0) if request[1] == 0 => {
            Some([&[0, 128, 0, 0, 0, 0, 0, 1][..], &table.external.octets()].concat())
        }
        (Control::NatPmp, 0) => {
            let (outside, lifetime) = settle(two(6), two(4), four(8));
            let head = [0, 129, 0, 0, 0, 0, 0, 1];
            Some([&head[..], &request[4..6], &outside.to_be_bytes(), &lifetime.to_be_bytes()].concat())
        }
        (Control::Refuses, 2) => {
            let mut answer = request.to_vec();
            (answer[1], answer[3]) = (0x81, 2);
            Some(answer)
        }
        _ => Some(vec![0, 0x80 | request[1], 0, 2, 0, 0, 0, 1]),
    }
}

async fn serve_search(socket: UdpSocket, web: SocketAddr, table: Shared) {
    let mut bytes = [0; 1100];
    while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
        let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if table.lock().unwrap().upnp && request.contains("InternetGatewayDevice:1") {
            let device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
            let answer =
                format!("HTTP/1.1 200 OK\r\nST: {device}\r\nLOCATION: http://{web}/rootDesc.xml\r\n\r\n");
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    }
}

async fn serve_web(listener: TcpListener, table: Shared) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = String::new();
        // The body follows its head in the same write.
        let mut bytes = [0; 8192];
        while !request.contains("\r\n\r\n")
            || (request.starts_with("POST") && !request.contains("Envelope>\r\n"))
        {
            let length = stream.read(&mut bytes).await.unwrap();
            assert_ne!(length, 0, "{request}");
            request.push_str(str::from_utf8(&bytes[..length]).unwrap());
        }
        let (status, body) = web(&mut table.lock().unwrap(), &request);
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn web(table: &mut Table, request: &str) -> (u16, String) {
    let argument = |name: &str| {
        let (_, rest) = request.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name}"));
        rest.split('<').next().unwrap().to_owned()
    };
    let refuse = |code: u16| {
        let detail = format!("<UPnPError><errorCode>{code}</errorCode></UPnPError>");
        (500, format!("<Envelope><Body><Fault>{detail}</Fault></Body></Envelope>"))
    };
    if request.starts_with("GET /rootDesc.xml ") {
        let service = "<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL>";
        return (200, format!("<root><device><service>{service}</service></device></root>"));
    }
    assert!(request.starts_with("POST /ctl "), "{request}");
    let action = request.split_once("SOAPAction: \"").unwrap().1.split('"').next().unwrap();
    match action.split_once('#').unwrap().1 {
        "GetExternalIPAddress" => {
            (200, format!("<e><NewExternalIPAddress>{}</NewExternalIPAddress></e>", table.external))
        }
        "AddPortMapping" => {
            assert_eq!(argument("NewInternalClient"), "127.0.0.1");
            assert_eq!(argument("NewProtocol"), "UDP");
            let outside: u16 = argument("NewExternalPort").parse().unwrap();
            if !table.leases && argument("NewLeaseDuration") != "0" {
                return refuse(725);
            }
            if table.taken.contains(&outside) {
                return refuse(718);
            }
            table.mapped.insert(outside, argument("NewInternalPort").parse().unwrap());
            (200, "<ok/>".to_owned())
        }
        "DeletePortMapping" => {
            let outside = argument("NewExternalPort").parse().unwrap();
            table.mapped.remove(&outside).map_or_else(|| refuse(714), |_| (200, "<ok/>".to_owned()))
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_pcp_gateway_maps_the_port_and_forgets_it_when_the_daemon_stops() {
    let mut scene = Scene::of(Table { control: Control::Pcp, ..Table::default() }).await;
    let mapping = scene.next().await;
    assert_eq!(mapping.external, Some("203.0.113.9:4000".parse().unwrap()));
    let status = mapping.status();
    assert_eq!((status.state, status.protocol), (MappingState::Mapped, Some(MappingProtocol::Pcp)));
    assert!(status.expires_secs.is_some_and(|seconds| (3500..=3600).contains(&seconds)), "{status:?}");
    assert_eq!(scene.in_table(), [(4000, 4000)]);
    scene.portmap.stop().await;
    assert_eq!(scene.table.lock().unwrap().mapped.len(), 0);
}

#[tokio::test]
async fn a_gateway_that_knows_only_nat_pmp_is_asked_that_way() {
    let taken = vec![INSIDE];
    let mut scene = Scene::of(Table { control: Control::NatPmp, taken, ..Table::default() }).await;
    let mapping = scene.next().await;
    assert_eq!(mapping.external, Some("203.0.113.9:4001".parse().unwrap()), "the port was taken");
    assert_eq!(mapping.protocol, Some(MappingProtocol::NatPmp));
    scene.portmap.stop().await;
    assert_eq!(scene.table.lock().unwrap().mapped.len(), 0);
}

#[tokio::test]
async fn a_upnp_gateway_is_found_and_told() {
    let mut scene = Scene::of(Table { upnp: true, ..Table::default() }).await;
    let mapping = scene.next().await;
    assert_eq!(mapping.external, Some("203.0.113.9:4000".parse().unwrap()), "{mapping:?}");
    assert_eq!(mapping.protocol, Some(MappingProtocol::Upnp));
    assert_eq!(scene.in_table(), [(4000, 4000)]);
    scene.portmap.stop().await;
    assert_eq!(scene.table.lock().unwrap().mapped.len(), 0);
}

#[tokio::test]
async fn a_upnp_gateway_without_leases_and_with_the_port_taken_gives_another_one_without_an_end() {
    let table = Table { upnp: true, leases: false, taken: vec![INSIDE], ..Table::default() };
    let mut scene = Scene::of(table).await;
    let mapping = scene.next().await;
    assert!(mapping.external.is_some_and(|external| external.port() >= 0x8000), "{mapping:?}");
    assert_eq!(mapping.status().expires_secs, None);
    scene.portmap.stop().await;
    assert_eq!(scene.table.lock().unwrap().mapped.len(), 0);
}

#[tokio::test]
async fn a_gateway_that_says_no_is_quoted_and_one_that_says_nothing_is_not_waited_for() {
    let mut scene = Scene::of(Table { control: Control::Refuses, ..Table::default() }).await;
    let mapping = scene.next().await;
    assert_eq!((mapping.state, mapping.reason.as_str()), (MappingState::Failed, "PCP: not authorized"));
    assert_eq!(mapping.gateway, Some("127.0.0.1".parse().unwrap()));
    let mut scene = Scene::of(Table::default()).await;
    let mapping = scene.next().await;
    assert_eq!(mapping.reason, "the gateway answers neither PCP nor NAT-PMP nor UPnP");
    // Nothing is held, so there is nothing to give back.
    scene.portmap.stop().await;
}

#[tokio::test]
async fn a_mapping_is_renewed_at_half_its_life_and_another_address_is_noticed() {
    let mut scene = Scene::of(Table { control: Control::Pcp, lifetime: 1, ..Table::default() }).await;
    scene.mapped_to("203.0.113.9:4000").await;
    scene.change(|table| table.external = [198, 51, 100, 7].into());
    scene.mapped_to("198.51.100.7:4000").await;
    // It keeps being renewed, and the same port is asked for.
    let before = scene.table.lock().unwrap().requests;
    scene.change(|table| table.external = [198, 51, 100, 8].into());
    scene.mapped_to("198.51.100.8:4000").await;
    assert!(scene.table.lock().unwrap().requests > before);
    assert_eq!(scene.in_table(), [(4000, 4000)]);
}

#[tokio::test]
async fn a_gateway_that_falls_silent_loses_the_mapping_at_its_end_and_gives_a_new_one_when_asked_again() {
    let mut scene = Scene::of(Table { control: Control::NatPmp, lifetime: 2, ..Table::default() }).await;
    scene.mapped_to("203.0.113.9:4000").await;
    scene.change(|table| table.control = Control::Silent);
    let mapping = loop {
        let mapping = scene.next().await;
        if mapping.state == MappingState::Failed {
            break mapping;
        }
    };
    assert_eq!(mapping.external, None);
    scene.change(|table| table.control = Control::NatPmp);
    scene.portmap.doubt().notify_one();
    scene.mapped_to("203.0.113.9:4000").await;
}

#[tokio::test]
async fn an_announcement_of_the_gateway_has_it_asked_again() {
    let mut port = 0;
    let table = Table { control: Control::Pcp, ..Table::default() };
    let mut scene = Scene::with(table, |settings| port = settings.announcements).await;
    scene.mapped_to("203.0.113.9:4000").await;
    scene.change(|table| {
        table.external = [198, 51, 100, 7].into();
        table.mapped.clear();
    });
    // From the gateway's address, as if it had restarted.
    scene.gateway.send_to(&[2, 0x80, 0, 0], ("127.0.0.1", port)).await.unwrap();
    scene.mapped_to("198.51.100.7:4000").await;
    assert_eq!(scene.in_table(), [(4000, 4000)]);
}

#[tokio::test]
async fn another_gateway_is_asked_at_once_and_none_at_all_is_said_so() {
    let mut scene = Scene::of(Table { control: Control::Pcp, ..Table::default() }).await;
    scene.mapped_to("203.0.113.9:4000").await;
    // Nothing listens at the other one.
    scene.seen.send_replace(surroundings([127, 0, 0, 9]));
    let mapping = scene.next().await;
    assert_eq!((mapping.state, mapping.external), (MappingState::Failed, None));
    scene.seen.send_replace(surroundings([127, 0, 0, 1]));
    scene.mapped_to("203.0.113.9:4000").await;
    scene.seen.send_replace(Surroundings::default());
    let mapping = scene.next().await;
    assert_eq!((mapping.state, mapping.reason.as_str()), (MappingState::NotNeeded, "there is no gateway"));
}

#[tokio::test]
async fn answers_from_anybody_but_the_gateway_are_none() {
    // A neighbour answers for the gateway: it sees each request and knows everything in it.
    let table = Table { control: Control::Silent, ..Table::default() };
    let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let search = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let neighbour = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let (control_port, search_port) =
        (gateway.local_addr().unwrap().port(), search.local_addr().unwrap().port());
    let mut scene = Scene::with(table, |settings| {
        settings.control = control_port;
        settings.search = search_port;
    })
    .await;
    let said = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&said);
    tokio::spawn(async move {
        let mut eager = Table { control: Control::Pcp, ..Table::default() };
        let (mut asked, mut searched) = ([0; 1100], [0; 1100]);
        loop {
            let (answer, to) = tokio::select! {
                received = gateway.recv_from(&mut asked) => {
                    let (length, from) = received.unwrap();
                    eager.control = if asked[0] == 2 { Control::Pcp } else { Control::NatPmp };
                    (control(&mut eager, &asked[..length]).unwrap(), from)
                }
                received = search.recv_from(&mut searched) => {
                    let (_, from) = received.unwrap();
                    let device = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
                    let answer = format!("HTTP/1.1 200 OK\r\nST: {device}\r\nLOCATION: http://127.0.0.1:1/\r\n\r\n");
                    (answer.into_bytes(), from)
                }
            };
            neighbour.send_to(&answer, to).await.unwrap();
            *counted.lock().unwrap() += 1;
        }
    });
    let mapping = scene.next().await;
    assert_eq!(mapping.state, MappingState::Failed, "{mapping:?}");
    assert_eq!(mapping.reason, "the gateway answers neither PCP nor NAT-PMP nor UPnP");
    assert!(*said.lock().unwrap() >= 3, "the neighbour answered");
}

#[tokio::test]
async fn datagrams_that_are_no_answers_are_waited_over() {
    let table = Table { control: Control::Silent, ..Table::default() };
    let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = gateway.local_addr().unwrap().port();
    let mut scene = Scene::with(table, |settings| {
        settings.control = port;
        settings.tries = vec![PATIENCE];
    })
    .await;
    let mut bytes = [0; 1100];
    let (length, from) = gateway.recv_from(&mut bytes).await.unwrap();
    let mut honest = Table { control: Control::Pcp, ..Table::default() };
    let answer = control(&mut honest, &bytes[..length]).unwrap();
    let mut of_another = answer.clone();
    of_another[30] ^= 1;
    for junk in [&b""[..], b"x", &answer[..59], &of_another, &[0xFF; 1100]] {
        gateway.send_to(junk, from).await.unwrap();
    }
    gateway.send_to(&answer, from).await.unwrap();
    assert_eq!(scene.next().await.external, Some("203.0.113.9:4000".parse().unwrap()));
}

#[test]
fn a_mapping_is_wanted_where_a_gateway_stands_between_this_host_and_the_world() {
    let interface = |name: &str, ip: &str, prefix| super::super::Interface {
        name: name.to_owned(),
        index: 1,
        ip: ip.parse().unwrap(),
        prefix,
        point_to_point: false,
    };
    let mut here = surroundings([192, 168, 1, 1]);
    here.routes.gateway.as_mut().unwrap().interface = "wlan0".to_owned();
    here.interfaces = vec![
        interface("eth0", "192.168.1.4", 24),
        interface("wlan0", "192.168.1.5", 24),
        interface("eth0", "2001:db8::4", 64),
    ];
    let expected = Target { gateway: [192, 168, 1, 1].into(), client: [192, 168, 1, 5].into() };
    assert_eq!(Target::of(&here, ANYWHERE), Ok(expected), "of two interfaces, that of the route");
    let at = |ip: &str| Target::of(&here, SocketAddr::new(ip.parse().unwrap(), INSIDE));
    assert_eq!(at("192.168.1.5"), Ok(expected));
    assert!(at("192.168.1.4").is_err() && at("2001:db8::4").is_err(), "nothing else comes in there");
    here.interfaces.push(interface("eth1", "203.0.113.5", 24));
    assert_eq!(Target::of(&here, ANYWHERE), Err("this host has an address that the world reaches"));
    here.interfaces = vec![interface("tun0", "10.9.0.2", 32)];
    assert_eq!(Target::of(&here, ANYWHERE), Err("the gateway is in none of this host's networks"));
}
