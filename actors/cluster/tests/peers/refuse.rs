//! What is refused, on both sides, and what strangers cost.

use crate::support::{Node, Pki, Without, both_up, wait_until};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use weald_cluster::transport::{Config, DialFailure, TlsFiles};
use weald_link::pki;
use weald_proto::hello::node::{NodeAnswer, NodeHello, VERSIONS};
use weald_proto::hello::{Hello, MAGIC, Refused, Role, VERSION, decode, encode, encode_within};
use weald_proto::limits::NODE_HELLO_BYTES_MAX;

/// A change that makes a node unfit, what it is told when it dials, and what others are told who dial it.
type Misfit = (fn(&mut Config), &'static str, &'static str);

/// What a dialling node is told.
async fn refusal(dialler: &Node, other: &Node) -> Refused {
    match dialler.transport.dial_seed(vec![other.address.clone()]).await {
        Err(DialFailure::Refused { refused, .. }) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_do_not_fit_are_told_why() {
    let (pki, other) = (Pki::new("blue"), Pki::new("red"));
    let a = pki.node(1).await;
    let with = |change: fn(&mut Config)| {
        let mut config = pki.config(2);
        change(&mut config);
        Node::start(config)
    };
    let of_clone = "another process with node id 01010101-";
    let cases: [Misfit; 7] = [
        (
            |c| c.versions = (5, 6),
            "the dialled node speaks versions 4 to 4, the dialling one 5 to 6: the dialling one is newer",
            "the dialled node speaks versions 5 to 6, the dialling one 4 to 4: the dialled one is newer",
        ),
        // Changes of the membership were told another way then.
        (
            |c| c.versions = (2, 2),
            "the dialled node speaks versions 4 to 4, the dialling one 2 to 2: the dialled one is newer",
            "the dialled node speaks versions 2 to 2, the dialling one 4 to 4: the dialling one is newer",
        ),
        // It would not take messages to its actors.
        (
            |c| c.versions = (3, 3),
            "the dialled node speaks versions 4 to 4, the dialling one 3 to 3: the dialled one is newer",
            "the dialled node speaks versions 3 to 3, the dialling one 4 to 4: the dialling one is newer",
        ),
        (
            |c| c.partitions = 16,
            "the dialled node has 8 partitions, the dialling one 16",
            "the dialled node has 16 partitions, the dialling one 8",
        ),
        (|c| c.node_uuid = [1; 16], of_clone, of_clone),
        (|c| c.capabilities = vec!["c".repeat(40)], "capabilities", "capabilities"),
        (|c| c.lanes = [0, 1, 1], "lanes", "lane"),
    ];
    for (change, dialling, dialled) in cases {
        let b = with(change).await;
        let told = refusal(&b, &a).await.to_string();
        assert!(told.contains(dialling), "{told}");
        let told = refusal(&a, &b).await.to_string();
        assert!(told.contains(dialled), "{told}");
        b.stop().await;
    }
    let red = Node::start(other.config(2)).await;
    let why = red.transport.dial_seed(vec![a.address.clone()]).await.unwrap_err();
    assert!(why.to_string().contains("UnknownIssuer"), "{why}");
    // One authority for two clusters.
    let mut authority = pki::make_authority("red").unwrap();
    let mut mixed = Pki::new("red");
    std::mem::swap(&mut authority, &mut mixed.authority);
    let both = [&pki.authority.cert_pem[..], &mixed.authority.cert_pem[..]].concat();
    let trusting = mixed.config(3);
    std::fs::write(trusting.tls.as_ref().unwrap().ca.as_ref().unwrap(), &both).unwrap();
    std::fs::write(pki.config(1).tls.unwrap().ca.unwrap(), &both).unwrap();
    a.transport.reload().unwrap();
    let stranger = Node::start(trusting).await;
    let told = refusal(&stranger, &a).await;
    assert_eq!(told, Refused::OtherCluster { ours: "blue".into(), theirs: "red".into() });
    assert!(matches!(refusal(&a, &a).await, Refused::Oneself));
    for node in [a, red, stranger] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_namesakes_the_evicted_and_those_too_early_are_refused() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    let clone = pki.node(2).await;
    assert!(matches!(refusal(&clone, &a).await, Refused::Clone(_)));
    let namesake = Node::start(Config { node_uuid: [9; 16], ..pki.config(2) }).await;
    assert_eq!(refusal(&namesake, &a).await, Refused::NameTaken("n2".into()));
    assert!(matches!(refusal(&namesake, &b).await, Refused::NameTaken(_)), "its own name");
    assert!(a.is_up(&b) && a.inbox.ups_downs() == (1, 0), "who was there stays");
    // Once the first is gone the clone is a restart.
    b.stop().await;
    wait_until("the first is gone", || a.transport.peers().is_empty()).await;
    clone.transport.dial_seed(vec![a.address.clone()]).await.unwrap();
    clone.stop().await;
    wait_until("it is gone", || a.transport.peers().is_empty()).await;

    a.transport.set_admission(Arc::new(Without("n3")));
    let evicted = pki.node(3).await;
    assert_eq!(refusal(&evicted, &a).await, Refused::Evicted("n3".into()));
    assert_eq!(refusal(&a, &evicted).await, Refused::Evicted("n3".into()), "nor is it dialled");
    wait_until("nothing is left", || evicted.transport.peers().is_empty()).await;
    a.transport.set_serving(false);
    let late = pki.node(4).await;
    assert_eq!(refusal(&late, &a).await, Refused::NotServing);
    for node in [a, namesake, evicted, late] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_a_wanted_address_is_not_taken_for_it() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    let wanted = weald_storage::NodeId([7; 16]);
    a.want_at(wanted, &b.address);
    wait_until("a failure", || a.failure(wanted).contains("found \"n2\"")).await;
    assert!(!a.is_up(&b));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_fit_the_node_are_said_at_its_start() {
    let pki = Pki::new("blue");
    let other = Pki::new("blue");
    let cases = [
        (Config { tls: Some(pki.files("n9")), ..pki.config(1) }, "weald://blue/n9"),
        (Config { cluster: Some("red".into()), ..pki.config(1) }, "weald://blue/n1"),
        (
            Config {
                tls: Some(TlsFiles { ca: other.files("n1").ca, ..pki.files("n1") }),
                ..pki.config(1)
            },
            "n1.pem",
        ),
    ];
    for (config, wanted) in cases {
        let why = Node::try_start(config).await.err().unwrap();
        assert!(why.contains(wanted), "{why}");
    }
    // Without an authority: clients only.
    let alone = Node::start(Config {
        tls: Some(TlsFiles { ca: None, ..pki.files("n1") }),
        ..pki.config(1)
    })
    .await;
    let b = pki.node(2).await;
    assert_eq!(refusal(&b, &alone).await, Refused::Role);
    let why = alone.transport.dial_seed(vec![b.address.clone()]).await.unwrap_err();
    assert!(matches!(why, DialFailure::NoCertificate), "{why}");
    alone.stop().await;
    b.stop().await;
}

/// TLS to a node, with a certificate or without. It must be trusted by the authority, as by clients.
pub(crate) async fn tls(
    node: &Node,
    ca: &Path,
    own: Option<&TlsFiles>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let roots = pki::roots(&std::fs::read(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(files) => {
            let cert = CertificateDer::from_pem_file(&files.cert).unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let stream = TcpStream::connect(&node.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn opening() -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        role: Role::Node,
        cluster: None,
        name: String::new(),
        nonce: [0; 32],
    };
    [&MAGIC[..], &encode(&hello).unwrap()].concat()
}

fn node_hello(name: &str) -> NodeHello {
    NodeHello {
        versions: VERSIONS,
        cluster: "blue".into(),
        name: name.into(),
        uuid: [5; 16],
        incarnation: 1,
        boot: [6; 16],
        partitions: 8,
        lanes: [1, 2, 2],
        channel: 0,
        lane: 0,
        addresses: vec![],
        capabilities: vec![],
        nonce: [0; 32],
    }
}

/// Sends bytes and reads until the node ends the connection.
async fn answer_to(mut stream: TlsStream<TcpStream>, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.ok();
    stream.flush().await.ok();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(4), stream.read_to_end(&mut answer)).await.unwrap().ok();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_liars_cost_one_refusal() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    let files = pki.files("n5");
    let ca = files.ca.clone().unwrap();
    let refused = |answer: &[u8]| match decode::<NodeAnswer>(&answer[2..]) {
        Ok(NodeAnswer::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let told = refused(&answer_to(tls(&a, &ca, None).await.unwrap(), &opening()).await);
    assert!(matches!(told, Refused::Certificate(_)), "{told}");
    let named = |name: &str| {
        let hello = encode_within(&node_hello(name), NODE_HELLO_BYTES_MAX).unwrap();
        [&opening()[..], &hello].concat()
    };
    let told = refused(&answer_to(tls(&a, &ca, Some(&files)).await.unwrap(), &named("n6")).await);
    assert!(told.to_string().contains("it is of node \"n5\", the hello says \"n6\""), "{told}");
    // Garbage instead of a hello: refused or cut, never more.
    let garbage = [&opening()[..], &[0, 40], &[0xEE; 40]].concat();
    let told = refused(&answer_to(tls(&a, &ca, Some(&files)).await.unwrap(), &garbage).await);
    assert!(matches!(told, Refused::Versions { .. } | Refused::Malformed(_)), "{told}");
    let oversize = [&opening()[..], &[0xFF, 0xFF], &[1; 5000]].concat();
    let answer = answer_to(tls(&a, &ca, Some(&files)).await.unwrap(), &oversize).await;
    assert!(answer.is_empty(), "{answer:?}");
    // A hello that is right, and then nothing: the place is free again in time.
    let mut silent = tls(&a, &ca, Some(&files)).await.unwrap();
    silent.write_all(&named("n5")).await.unwrap();
    let began = Instant::now();
    let mut half = tls(&a, &ca, Some(&files)).await.unwrap();
    half.write_all(&opening()[..20]).await.unwrap();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(8), half.read_to_end(&mut rest)).await.unwrap().ok();
    timeout(Duration::from_secs(8), silent.read_to_end(&mut rest)).await.unwrap().ok();
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    wait_until("no connection is left", || a.links("").is_empty()).await;
    assert_eq!(a.inbox.ups_downs(), (0, 0));
    a.want(&[&b]);
    both_up(&a, &b).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_without_a_node_are_given_up_in_time() {
    let pki = Pki::new("blue");
    let a = pki.node(1).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chatty = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses =
        [&silent, &chatty].map(|listener| vec![listener.local_addr().unwrap().to_string()]);
    let chat = async {
        let (mut stream, _) = chatty.accept().await.unwrap();
        stream.write_all(b"220 smtp.example ready\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    };
    let began = Instant::now();
    let [to_silent, to_chatty] = addresses.map(|addresses| a.transport.dial_seed(addresses));
    let (nobody, mail, ()) = tokio::join!(to_silent, to_chatty, chat);
    assert!(matches!(nobody.unwrap_err(), DialFailure::Timeout { .. }));
    assert!(matches!(mail.unwrap_err(), DialFailure::Unreachable { .. }));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(matches!(a.transport.dial_seed(vec![]).await, Err(DialFailure::NoAddress)));
    let refusing = silent.local_addr().unwrap().to_string();
    drop(silent);
    // The next address is tried when one fails.
    let b = pki.node(2).await;
    let found = a.transport.dial_seed(vec![refusing, b.address.clone()]).await.unwrap();
    assert_eq!(found.node, b.id);
    a.stop().await;
    b.stop().await;
}
