//! Tokens of each cloud are accepted under that cloud's settings only. The gateway requests the
//! real host names, through a proxy in place of the internet.

use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    entra::{Entra, TENANT, TokenBuilder},
    tls_edge::acceptor,
    world::{Kind, Store, gateway::Gateway, settings, try_login},
};

/// Sign-in host of a cloud and the issuer of its v1 tokens.
#[derive(Clone, Copy)]
struct Cloud {
    setting: &'static str,
    host: &'static str,
    issuer_v1: &'static str,
}

const CLOUDS: [Cloud; 3] = [
    Cloud {
        setting: "public",
        host: "login.microsoftonline.com",
        issuer_v1: "https://sts.windows.net",
    },
    // Its v1 issuer is that of the public cloud: only the keys differ.
    Cloud {
        setting: "usgovernment",
        host: "login.microsoftonline.us",
        issuer_v1: "https://sts.windows.net",
    },
    Cloud {
        setting: "china",
        host: "login.partner.microsoftonline.cn",
        issuer_v1: "https://sts.chinacloudapi.cn",
    },
];

impl Cloud {
    fn issuers(self) -> [String; 2] {
        [format!("{}/{TENANT}/", self.issuer_v1), format!("https://{}/{TENANT}/v2.0", self.host)]
    }

    /// Tokens of both versions. Public ones are signed with one key, those of other clouds with
    /// another.
    fn tokens(self, entra: &Entra) -> [TokenBuilder; 2] {
        let [v1, v2] = self.issuers();
        let token = entra.token().issued_by(&v1, &v2);
        let token = if self.setting == "public" {
            token
        } else {
            let kid = Entra::unpublished_jwk()["kid"].as_str().unwrap().to_owned();
            token.signed_with_unpublished_key().kid(&kid)
        };
        [token.clone().v1(), token]
    }

    fn document(self, path: &str, public_key: &Value) -> Value {
        let [v1, v2] = self.issuers();
        let (is_v2, host) = (path.contains("v2.0"), self.host);
        if path.contains("/keys") {
            let mut key = if self.setting == "public" {
                public_key.clone()
            } else {
                Entra::unpublished_jwk()
            };
            if is_v2 {
                key["issuer"] = format!("https://{host}/{{tenantid}}/v2.0").into();
            }
            json!({ "keys": [key] })
        } else {
            let keys = if is_v2 { "discovery/v2.0/keys" } else { "discovery/keys" };
            let issuer = if is_v2 { v2 } else { v1 };
            json!({ "issuer": issuer, "jwks_uri": format!("https://{host}/{TENANT}/{keys}") })
        }
    }
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap_or(b'\n'));
        assert!(head.len() < 10_000);
    }
    String::from_utf8(head).unwrap()
}

/// Answers `CONNECT` to a sign-in host with the documents of its cloud.
async fn serve(mut stream: TcpStream, tls: TlsAcceptor, public_key: Value) {
    let asked = head(&mut stream).await;
    let host = asked.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next());
    let Some(cloud) = CLOUDS.into_iter().find(|cloud| Some(cloud.host) == host) else {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        return;
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut stream = tls.accept(stream).await.unwrap();
    let asked = head(&mut stream).await;
    let path = asked.split(' ').nth(1).unwrap();
    let body = cloud.document(path, &public_key).to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn tokens_of_a_cloud_are_accepted_under_its_own_settings_only() {
    let names: Vec<String> = CLOUDS.iter().map(|cloud| cloud.host.to_owned()).collect();
    let certificate = generate_simple_self_signed(names).unwrap();
    let tls = acceptor(&certificate);
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    let public_key = entra.published_key();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = proxy.accept().await {
            tokio::spawn(serve(stream, tls.clone(), public_key.clone()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).unwrap();

    for here in CLOUDS {
        let mut settings = settings(&entra, None, &store, &[]);
        settings.retain(|(name, _)| !name.starts_with("CUSTOM_"));
        settings.extend(
            [
                ("AZURE_ENVIRONMENT", here.setting),
                ("HTTPS_PROXY", &proxy_url),
                ("SSL_CERT_FILE", &ca.display().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let gateway = Gateway::start(&settings).await;
        gateway.wait_until_it_has_keys().await;
        for there in CLOUDS {
            for token in there.tokens(&entra) {
                let status = try_login(&gateway, &token.build()).await.status();
                let is_home = here.setting == there.setting;
                let case = format!("a token of {} under {}", there.setting, here.setting);
                assert_eq!(status, if is_home { 200 } else { 401 }, "{case}");
            }
        }
    }
}
