//! A server or a device on this LAN, until the end of the input (Ctrl-D).
//!
//! ```text
//! cargo run -p tillwire-discovery --features tokio --example lan -- server
//! cargo run -p tillwire-discovery --features tokio --example lan -- device
//! ```
//!
//! Several on one host need an address each; on loopback: `-- server 127.0.0.1`, `-- device 127.0.0.2`.

use core::error::Error;
use core::net::Ipv4Addr;
use std::io::Read;

use discovery::driver::{Net, device, server};
use discovery::{DeviceConfig, ServerConfig};
use wire_format::ids::{NodeId, Store};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let bind = arguments.next().map(|address| address.parse::<Ipv4Addr>()).transpose()?;
    let net = Net { bind, ..Net::default() };
    let store = Store::new(1, "EXAMPLE")?;
    // A real node keeps its id; one per process and address is enough here.
    let seed = u64::from(std::process::id()) << 32 | u64::from(bind.map_or(0, Ipv4Addr::to_bits));
    let id = NodeId((u128::from(seed) | 1).to_le_bytes());
    match role.as_str() {
        "server" => serve(net, ServerConfig::new(id, store), seed).await,
        "device" => seek(net, DeviceConfig::new(id, store), seed).await,
        _ => {
            Err("say `server` or `device`, and an address to bind to if there are several on this host"
                .into())
        }
    }
}

async fn serve(net: Net, config: ServerConfig, seed: u64) -> Result<(), Box<dyn Error>> {
    let mut driver = server::spawn(net, config, 1_000, seed)?;
    let mut end = end_of_input();
    loop {
        tokio::select! {
            Some(told) = driver.next_event() => {
                println!("{} at {}: {:?}", told.event.id, told.event.address, told.event.what);
            }
            _ = &mut end => break,
        }
    }
    println!("{:#?}", driver.handle().stats().await);
    driver.shutdown().await;
    Ok(())
}

async fn seek(net: Net, config: DeviceConfig, seed: u64) -> Result<(), Box<dyn Error>> {
    let mut driver = device::spawn(net, config, seed)?;
    let mut end = end_of_input();
    loop {
        tokio::select! {
            Some(told) = driver.next_event() => println!("{:?}", told.event),
            _ = &mut end => break,
        }
    }
    println!("{:#?}", driver.handle().stats().await);
    driver.shutdown().await;
    Ok(())
}

fn end_of_input() -> tokio::sync::oneshot::Receiver<()> {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _closed = std::io::stdin().read_to_end(&mut Vec::new());
        let _gone = ended.send(());
    });
    end
}
