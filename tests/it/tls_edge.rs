//! A platform's edge: terminates TLS and says so.

use std::sync::{Arc, OnceLock};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// `https://localhost:PORT`, with a certificate of its own.
pub(crate) struct TlsEdge {
    folder: TempDir,
    port: u16,
    there: Arc<OnceLock<String>>,
}

impl TlsEdge {
    /// In front of an address.
    pub(crate) async fn start(address: String) -> Self {
        let edge = Self::start_first().await;
        edge.stand_before(address);
        edge
    }

    /// In front of nothing yet: its URL is known before the address is.
    pub(crate) async fn start_first() -> Self {
        let certificate = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.cert.pem()).unwrap();
        let there = Arc::new(OnceLock::new());
        let port = serve(Arc::clone(&there), &certificate).await;
        Self { folder, port, there }
    }

    /// In front of this from now on.
    pub(crate) fn stand_before(&self, address: String) {
        self.there.set(address).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A file with the certificate to trust.
    pub(crate) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

/// Speaks TLS with a certificate.
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

/// One request a connection.
async fn serve(there: Arc<OnceLock<String>>, certificate: &CertifiedKey<KeyPair>) -> u16 {
    let acceptor = acceptor(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, there) = (acceptor.clone(), Arc::clone(&there));
            tokio::spawn(async move {
                let mut caller = acceptor.accept(stream).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(caller.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let told = |line: &&str| {
                    let line = line.to_ascii_lowercase();
                    !line.starts_with("connection:") && !line.starts_with("x-forwarded-proto:")
                };
                let kept: Vec<_> = head.trim_end().split("\r\n").filter(told).collect();
                let added = "X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
                let head = format!("{}\r\n{added}", kept.join("\r\n"));
                let mut there = TcpStream::connect(there.get().unwrap()).await.unwrap();
                there.write_all(head.as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut caller, &mut there).await;
            });
        }
    });
    port
}
