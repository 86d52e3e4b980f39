//! A driver on a host: on a thread of its own that sees the host's network, with its events as lines.

use core::time::Duration;
use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use discovery::driver::device::{DeviceHandle, DeviceStats};
use discovery::driver::server::{ServerHandle, ServerStats};
use discovery::driver::{Net, OpenError, OpenErrorKind, device, server};
use discovery::{DeviceConfig, SeekerEvent, ServerConfig};
use testkit::netns::{Lan, Packet, Protocol};
use tokio::sync::oneshot;
use wire_format::datagram::header::{Header, Kind};
use wire_format::ids::{NodeId, Store};

/// For what has to happen but not by a certain time.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// What the driver promises after a change of the network, six seconds, and as much again for a busy machine. Whatever
/// waits for the next steady beacon, SEEK or lease instead takes longer.
pub(crate) const RECOVERY: Duration = Duration::from_secs(12);
/// The number of the server, where there is one.
pub(crate) const SERVER: u8 = 200;

pub(crate) fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

pub(crate) fn store() -> Store {
    Store::new(7, "LYON-01").expect("a store")
}

pub(crate) fn server_config() -> ServerConfig {
    ServerConfig::new(id(SERVER), store())
}

pub(crate) fn device_config(number: u8) -> DeviceConfig {
    DeviceConfig::new(id(number), store())
}

/// The datagram of ours a packet carries, if any.
pub(crate) fn kind(packet: &Packet) -> Option<Kind> {
    if packet.protocol != Protocol::Udp {
        return None;
    }
    Header::parse(&packet.payload).ok().map(|header| header.kind)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[expect(clippy::disallowed_methods, reason = "the tests of a driver measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the network of the test needs real time to change")]
pub(crate) fn sleep(span: Duration) {
    std::thread::sleep(span);
}

/// A node that runs: a server or a device. Dropped, it says goodbye first.
pub(crate) struct Node<H> {
    handle: H,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    lines: Receiver<String>,
    heard: Vec<String>,
}

pub(crate) type Server = Node<ServerHandle>;
pub(crate) type Device = Node<DeviceHandle>;

/// A server with the defaults on a host.
pub(crate) fn serve(lan: &Lan, host: &str) -> Server {
    serve_with(lan, host, Net::default(), server_config())
}

pub(crate) fn serve_with(lan: &Lan, host: &str, net: Net, config: ServerConfig) -> Server {
    Node::start(lan, host, async move |say, mut end| {
        let seed = u64::from(config.id.0[0]);
        let mut driver = opened(|| server::spawn(net.clone(), config.clone(), 100, seed));
        say.start(driver.handle().clone());
        loop {
            tokio::select! {
                told = driver.next_event() => {
                    let event = told.expect("runs").event;
                    say.line(format!("{} {} {:?}", event.id.0[0], event.address, event.what));
                }
                _ = &mut end => break,
            }
        }
        driver.shutdown().await;
    })
}

/// A device with the defaults on a host.
pub(crate) fn seek(lan: &Lan, host: &str, number: u8) -> Device {
    seek_with(lan, host, Net::default(), device_config(number))
}

pub(crate) fn seek_with(lan: &Lan, host: &str, net: Net, config: DeviceConfig) -> Device {
    Node::start(lan, host, async move |say, mut end| {
        let seed = u64::from(config.id.0[0]);
        let mut driver = opened(|| device::spawn(net.clone(), config.clone(), seed));
        say.start(driver.handle().clone());
        loop {
            tokio::select! {
                told = driver.next_event() => say.line(seeker_line(&told.expect("runs").event)),
                _ = &mut end => break,
            }
        }
        driver.shutdown().await;
    })
}

/// A program that another test is just starting holds a copy of every open file until it has begun: a port that was
/// closed may be in use for that long.
fn opened<T>(mut open: impl FnMut() -> Result<T, OpenError>) -> T {
    let asked = now();
    loop {
        match open() {
            Ok(driver) => return driver,
            Err(error) if error.kind() == OpenErrorKind::PortInUse && asked.elapsed() < SOON => {
                sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn seeker_line(event: &SeekerEvent) -> String {
    match event {
        SeekerEvent::ServerFound { id, address } => format!("found {} {}", id.0[0], address.ip()),
        SeekerEvent::Registered { id, address } => format!("registered {} {}", id.0[0], address.ip()),
        SeekerEvent::ServerLost { id } => format!("lost {}", id.0[0]),
        other => format!("{other:?}"),
    }
}

/// How the node's thread talks to the test.
pub(crate) struct Say<H> {
    handle: std::sync::mpsc::Sender<H>,
    lines: std::sync::mpsc::Sender<String>,
}

impl<H> Say<H> {
    fn start(&self, handle: H) {
        // A test that panicked has gone.
        let _ = self.handle.send(handle);
    }

    fn line(&self, line: String) {
        let _ = self.lines.send(line);
    }
}

impl<H: Send + 'static> Node<H> {
    fn start<F>(
        lan: &Lan,
        host: &str,
        body: impl FnOnce(Say<H>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()>,
    {
        let (started, start) = channel();
        let (said, lines) = channel();
        let (end, ended) = oneshot::channel();
        let say = Say { handle: started, lines: said };
        let thread = lan.spawn(host, move || runtime().block_on(body(say, ended)));
        let handle = start.recv_timeout(SOON).expect("the node starts");
        Self { handle, end: Some(end), thread: Some(thread), lines, heard: Vec::new() }
    }
}

impl<H> Node<H> {
    /// Waits for a line that begins with `start`; those before it are kept.
    pub(crate) fn says(&mut self, start: &str, within: Duration) {
        let asked = now();
        loop {
            let left = within.saturating_sub(asked.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.starts_with(start);
                    self.heard.push(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not {start:?} within {within:?}, but {:?}", self.heard)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the node ended: {:?}", self.heard),
            }
        }
    }

    /// Waits until it has said as many lines as these; they must be these, in whichever order, and no others.
    pub(crate) fn has_said(&mut self, lines: &[&str]) {
        until(&format!("{} lines", lines.len()), || self.said().len() >= lines.len());
        let mut said = self.said().to_vec();
        said.sort();
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        assert_eq!(said, lines);
    }

    /// Everything it has said so far.
    pub(crate) fn said(&mut self) -> &[String] {
        self.heard.extend(self.lines.try_iter());
        &self.heard
    }
}

impl Server {
    pub(crate) fn stats(&self) -> ServerStats {
        runtime().block_on(self.handle.stats()).expect("it runs")
    }

    /// Where a device is, as the roster has it.
    pub(crate) fn address(&self, number: u8) -> Option<String> {
        let found = runtime().block_on(self.handle.find(id(number)))?;
        Some(found.source.ip().to_string())
    }
}

impl Device {
    pub(crate) fn stats(&self) -> DeviceStats {
        runtime().block_on(self.handle.stats()).expect("it runs")
    }

    /// The address of its server, if it has one that knows it.
    pub(crate) fn server(&self) -> Option<String> {
        let server = runtime().block_on(self.handle.server())?;
        server.registered.then(|| server.address.ip().to_string())
    }
}

impl<H> Drop for Node<H> {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the node panicked");
        }
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let asked = now();
    while !so() {
        assert!(asked.elapsed() < SOON, "waited in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}
