//! A server and a client over a TLS library of their own choice, which `Server::upgrade` allows. With certificates in
//! files, `framelet::tls` is shorter. `cargo run --example tls`.

use std::sync::Arc;

use framelet::server::Echo;
use framelet::{Address, Framed, Layout, Server};
use futures_lite::future;
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In earnest, the certificate and its key come from files.
    let made = rcgen::generate_simple_self_signed(["localhost".into()])?;
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.try_into()?)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(server));

    future::block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
        let address = listener.address()?;
        // The handshake runs in the task of its connection, and has 30 s.
        let server = Server::new(listener).upgrade(move |tcp| acceptor.accept(tcp)).answer(Echo);
        let _server = smol::spawn(server.run(future::pending()));

        let connector = TlsConnector::from(Arc::new(client));
        let tls = connector.connect("localhost".try_into()?, address.connect().await?).await?;
        let mut client = Framed::new(tls, Layout::U32BE);
        client.send(b"hello over TLS").await?;
        println!("{}", String::from_utf8(client.read().await?.unwrap_or_default())?);
        client.close().await?; // and the server's end: it has read everything
        assert_eq!(client.read().await?, None);
        Ok(())
    })
}
