//! Runs a rendezvous without the command line around it: `cargo run -p pilot-rendezvous --example serve -- STORE
//! [REGISTRY_ADDR [BEACON_ADDR [ADMIN_TOKEN]]]`. Prints the two addresses on one line when ready.
#![expect(clippy::print_stdout, reason = "the addresses are its output")]

use pilot_rendezvous::{Bound, Config, run};
use std::{error::Error, io::Write as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::new(arguments.next().ok_or("where is the store?")?.into());
    if let Some(addr) = arguments.next() {
        config.registry_addr = addr.parse()?;
    }
    if let Some(addr) = arguments.next() {
        config.beacon_addr = addr.parse()?;
    }
    config.registry.admin_token = arguments.next();
    let announce = |bound: Bound| {
        println!("{} {}", bound.registry, bound.beacon);
        // Whoever started this waits for the line.
        let _ = std::io::stdout().flush();
    };
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "no signals");
            std::future::pending::<()>().await;
        }
    };
    Ok(run(config, announce, interrupted).await?)
}
