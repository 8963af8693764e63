//! MQTT: a broker, here mosquitto, with a topic for each agent; quality of service 1 (at least once).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rumqttc::{AsyncClient, Event, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::time::sleep;

use crate::six_ways::Error;
use crate::six_ways::job::{HELD, Link};
use crate::six_ways::role::Name;
use crate::six_ways::wire::{KEEP_ALIVE, PAUSE};

/// An agent at the broker.
pub(crate) fn link(me: Name, broker: SocketAddr) -> Link {
    let (link, mut ends) = Link::new();
    let mut options = MqttOptions::new(format!("agent-{me}"), broker.ip().to_string(), broker.port());
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, HELD);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let publisher = client.clone();
    tokio::spawn(async move {
        let topic = format!("to/{}", me.other());
        while let Some(message) = ends.said.recv().await {
            let Ok(body) = serde_json::to_vec(&message) else { continue };
            if publisher.publish(&topic, QoS::AtLeastOnce, false, body).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    // The session is clean, so each connection subscribes.
                    if client.subscribe(format!("to/{me}"), QoS::AtLeastOnce).await.is_err() {
                        return;
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let Ok(message) = serde_json::from_slice(&publish.payload) else { continue };
                    if ends.told.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(_) => sleep(PAUSE).await,
            }
        }
    });
    link
}

/// Writes the broker's configuration into a folder and returns its path.
pub(crate) fn configure(folder: &Path, listen: SocketAddr) -> Result<PathBuf, Error> {
    let path = folder.join("mosquitto.conf");
    let (ip, port) = (listen.ip(), listen.port());
    // It runs as who starts it: the folder is that user's alone.
    let text = format!(
        "user root\nlistener {port} {ip}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
         log_dest stderr\nlog_type error\nlog_type warning\n"
    );
    fs::write(&path, text)?;
    Ok(path)
}
