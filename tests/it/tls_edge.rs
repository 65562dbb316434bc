//! A platform's edge: terminates TLS and reports it in `X-Forwarded-Proto`.

use std::sync::{Arc, OnceLock};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Listens at `https://localhost:PORT` with its own certificate.
pub(crate) struct TlsEdge {
    folder: TempDir,
    port: u16,
    target: Arc<OnceLock<String>>,
}

impl TlsEdge {
    /// Starts in front of an address.
    pub(crate) async fn start(address: String) -> Self {
        let edge = Self::start_without_target().await;
        edge.set_target(address);
        edge
    }

    /// Starts without a target; its URL is known before the target is.
    pub(crate) async fn start_without_target() -> Self {
        let certificate = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.cert.pem()).unwrap();
        let target = Arc::new(OnceLock::new());
        let port = serve(Arc::clone(&target), &certificate).await;
        Self { folder, port, target }
    }

    /// Sets the target. May be called once.
    pub(crate) fn set_target(&self, address: String) {
        self.target.set(address).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Path of the certificate to trust.
    pub(crate) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

/// TLS acceptor for a certificate.
pub(crate) fn acceptor(certificate: &CertifiedKey<KeyPair>) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves one request per connection.
async fn serve(target: Arc<OnceLock<String>>, certificate: &CertifiedKey<KeyPair>) -> u16 {
    let acceptor = acceptor(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, target) = (acceptor.clone(), Arc::clone(&target));
            tokio::spawn(async move {
                let mut caller = acceptor.accept(stream).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(caller.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let is_forwarded = |line: &&str| {
                    let line = line.to_ascii_lowercase();
                    !line.starts_with("connection:") && !line.starts_with("x-forwarded-proto:")
                };
                let lines: Vec<_> = head.trim_end().split("\r\n").filter(is_forwarded).collect();
                let added = "X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
                let head = format!("{}\r\n{added}", lines.join("\r\n"));
                let mut target = TcpStream::connect(target.get().unwrap()).await.unwrap();
                target.write_all(head.as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut caller, &mut target).await;
            });
        }
    });
    port
}
