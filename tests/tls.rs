//! TLS in front of a test's cluster: the PostgreSQL that the tests bring along is built without it.
//!
//! The front speaks the first words of PostgreSQL's protocol, in which a client asks for TLS, and passes on the rest.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cluster::TestCluster;

/// A server's certificate, and its key.
pub struct Certificate {
    der: CertificateDer<'static>,
    key: KeyPair,
    /// The text of the file that a client has to trust.
    trusted: String,
}

impl Certificate {
    /// By an authority of its own, for a server of this name.
    pub fn by_an_authority(name: &str) -> Certificate {
        let authority_key = KeyPair::generate().expect("a key");
        let mut of_authority = params(&[]);
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = of_authority.self_signed(&authority_key).expect("a certificate");
        let issuer = Issuer::new(of_authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let certificate = params(&[name]).signed_by(&key, &issuer).expect("a certificate");
        Certificate { der: certificate.der().clone(), key, trusted: authority.pem() }
    }

    /// By itself. `openssl req -x509` makes one that is an authority too.
    pub fn by_itself(name: &str, authority: bool) -> Certificate {
        Certificate::of_its_own(of_itself(name, authority))
    }

    /// The same, of which the last day is past.
    pub fn expired(name: &str, authority: bool) -> Certificate {
        let mut params = of_itself(name, authority);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        Certificate::of_its_own(params)
    }

    fn of_its_own(params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Certificate { der: certificate.der().clone(), key, trusted: certificate.pem() }
    }

    /// Writes the file that a client has to trust.
    pub fn write_trusted(&self, cluster: &TestCluster) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = cluster.server.directory().join(format!("trusted-{number}.pem"));
        fs::write(&path, &self.trusted).expect("a file is written");
        path
    }

    fn config(&self) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("a key of the certificate")
    }
}

fn of_itself(name: &str, authority: bool) -> CertificateParams {
    let mut params = params(&[name]);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names of servers")
}

/// A port on loopback that leads to a cluster. It serves until the test's process ends.
pub struct TlsFront {
    pub address: SocketAddr,
    shaken: Arc<AtomicU32>,
}

impl TlsFront {
    /// One without a certificate answers that it has no TLS, as a server with `ssl = off` does.
    pub fn start(cluster: &TestCluster, certificate: Option<&Certificate>) -> TlsFront {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("an address");
        let config = certificate.map(|certificate| Arc::new(certificate.config()));
        let socket = cluster.server.sockets().join(format!(".s.PGSQL.{}", xtask::cluster::PORT));
        let shaken = Arc::new(AtomicU32::new(0));
        let counted = shaken.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (config, socket, counted) = (config.clone(), socket.clone(), counted.clone());
                // The client may have had enough, and so may the server.
                thread::spawn(move || drop(serve(client, config, &socket, &counted)));
            }
        });
        TlsFront { address, shaken }
    }

    /// How many connections were encrypted.
    pub fn encrypted(&self) -> u32 {
        self.shaken.load(Ordering::Relaxed)
    }
}

/// The message of a client that asks for TLS: a length and a number.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn serve(
    mut client: TcpStream,
    config: Option<Arc<ServerConfig>>,
    socket: &Path,
    counted: &AtomicU32,
) -> io::Result<()> {
    let mut first = [0; 8];
    client.read_exact(&mut first)?;
    if first != REQUEST {
        // A client that does not ask for TLS is refused.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    let mut server = UnixStream::connect(socket)?;
    let Some(config) = config else {
        client.write_all(b"N")?;
        let mut other = client.try_clone()?;
        let mut back = server.try_clone()?;
        thread::spawn(move || io::copy(&mut back, &mut other));
        return io::copy(&mut client, &mut server).map(drop);
    };
    client.write_all(b"S")?;
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut client)?;
    }
    counted.fetch_add(1, Ordering::Relaxed);
    relay(&mut StreamOwned::new(connection, client), &mut server)
}

/// Passes on the bytes of either side until one of them ends.
fn relay(client: &mut StreamOwned<ServerConnection, TcpStream>, server: &mut UnixStream) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        // Bytes that came with the end of the handshake lie in the connection already.
        let mut has_more = true;
        while has_more {
            has_more = match client.conn.reader().read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => server.write_all(&bytes[..length]).map(|()| true)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => return Err(error),
            };
        }
        let mut ready = [
            PollFd::new(client.sock.as_fd(), PollFlags::POLLIN),
            PollFd::new(server.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::NONE)?;
        let [from_client, from_server] = ready.map(|one| one.any().unwrap_or_default());
        if from_client {
            if client.conn.read_tls(&mut client.sock)? == 0 {
                return Ok(());
            }
            client.conn.process_new_packets().map_err(io::Error::other)?;
        }
        if from_server {
            let length = server.read(&mut bytes)?;
            if length == 0 {
                client.conn.send_close_notify();
                return client.flush();
            }
            client.write_all(&bytes[..length])?;
            client.flush()?;
        }
    }
}
