//! The server's end of the control socket.
//!
//! A Unix socket is made in a directory only we can enter, given mode 0600 there, and then moved to its name: nobody
//! ever sees it with other rights. A name whose server is gone is taken over; one whose server lives is "in use".

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::Endpoint;
use crate::error::Failure;

/// A stream of either sort.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The listening socket. A Unix socket's name goes when this does.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A Unix socket, and its name, which goes with it.
    Unix { listener: UnixListener, _name: Name },
    /// A loopback port.
    Tcp(TcpListener),
}

/// The file name of a listening socket.
#[derive(Debug)]
pub(crate) struct Name {
    path: PathBuf,
    inode: u64,
}

impl Drop for Name {
    fn drop(&mut self) {
        // Somebody else's by now? Then it is not ours to remove.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Takes the name or port.
    pub(crate) async fn bind(endpoint: &Endpoint) -> Result<Self, Failure> {
        match endpoint {
            Endpoint::Tcp(address) => {
                TcpListener::bind(address).await.map(Self::Tcp).map_err(|e| tcp(*address, &e))
            }
            Endpoint::Unix(path) => {
                free(path).await?;
                let (listener, name) = unix(path).map_err(|error| cannot(path, &error))?;
                Ok(Self::Unix { listener, _name: name })
            }
        }
    }

    /// The next caller.
    pub(crate) async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// The name must be free, or left behind by a server that is gone.
async fn free(path: &Path) -> Result<(), Failure> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(path, &error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Failure::start(
            format!("{} exists and is no socket", path.display()),
            "give --control another name, or move that file away",
        ));
    }
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(Failure::start(
            format!("the control socket {} is in use by a running server", path.display()),
            "stop that server, or give this one another --control",
        )),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(cannot(path, &error)),
    }
}

fn unix(path: &Path) -> std::io::Result<(UnixListener, Name)> {
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    // Left by a process of our number that was killed in between.
    let _ = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let inside = private.join("s");
    let bind = || {
        let listener = UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(&inside)?.ino();
        std::fs::rename(&inside, path)?;
        Ok((listener, Name { path: path.to_owned(), inode }))
    };
    let bound = bind();
    let _ = std::fs::remove_dir_all(&private);
    bound
}

fn cannot(path: &Path, error: &std::io::Error) -> Failure {
    Failure::start(
        format!("cannot open the control socket {}: {error}", path.display()),
        "give --control a path (of at most 90 bytes) in a directory this user may write to",
    )
}

fn tcp(address: SocketAddr, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::AddrInUse => Failure::start(
            format!("the control port {address} is in use"),
            "stop what listens there, or give --control another port",
        ),
        _ => Failure::start(
            format!("cannot open the control port {address}: {error}"),
            "give --control another one",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_servers_name_is_taken_over_and_a_live_ones_is_not() {
        let path = std::env::temp_dir().join(format!("tillwire-control-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let endpoint = Endpoint::Unix(path.clone());
        // A name without its server: what a killed one leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&endpoint).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&endpoint).await.unwrap_err().cause.contains("in use"));
        let (here, there) = tokio::join!(listener.accept(), tokio::net::UnixStream::connect(&path));
        assert!(here.is_ok() && there.is_ok(), "it is reached under its name");
        drop(listener);
        assert!(!path.exists(), "the name goes with the server");
        std::fs::write(&path, "a file").unwrap();
        assert!(Listener::bind(&endpoint).await.unwrap_err().cause.contains("no socket"));
        std::fs::remove_file(&path).unwrap();
    }
}
