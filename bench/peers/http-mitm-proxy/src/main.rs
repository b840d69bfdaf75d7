//! A peer: http-mitm-proxy with the client that it brings (native-tls), and one header put in.
//!
//! usage: http-mitm-proxy-peer PORT CA_CERT CA_KEY
//!
//! SSL_CERT_FILE names the upstream's root.

use std::env;
use std::fs;

use http_mitm_proxy::default_client::Error;
use http_mitm_proxy::hyper::Request;
use http_mitm_proxy::hyper::body::Incoming;
use http_mitm_proxy::hyper::header::AUTHORIZATION;
use http_mitm_proxy::hyper::http::HeaderValue;
use http_mitm_proxy::hyper::service::service_fn;
use http_mitm_proxy::moka::sync::Cache;
use http_mitm_proxy::{DefaultClient, MitmProxy};
use rcgen::{Issuer, KeyPair};

#[tokio::main]
async fn main() {
    let words: Vec<String> = env::args().collect();
    let [_, port, certificate, key] = words.as_slice() else {
        panic!("usage: http-mitm-proxy-peer PORT CA_CERT CA_KEY");
    };
    let read = |file| fs::read_to_string(file).expect("a PEM file");
    let key = KeyPair::from_pem(&read(key)).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read(certificate), key).expect("a root");

    let client = DefaultClient::new();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let credential = HeaderValue::from_static("Bearer sk-injected-0123456789abcdef");
            request.headers_mut().insert(AUTHORIZATION, credential);
            let (response, _) = client.send_request(request).await?;
            Ok::<_, Error>(response)
        }
    });
    let proxy = MitmProxy::new(Some(issuer), Some(Cache::new(1_000)));
    let address = ("127.0.0.1", port.parse().expect("a port"));
    proxy
        .bind(address, service)
        .await
        .expect("a free port")
        .await;
}
