//! Where the peers of a case are, and how they speak.

use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, Instant};
use weald_tests::wamp::{At, Got, Log, PATIENCE, Peer, Serializer, Transport, details};

/// The realm of a node without a configuration.
pub(crate) const REALM: &str = "realm1";
/// The sides of a case: on one node the same place, but for the serializer.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// A way to run a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) nodes: usize,
    pub(crate) sides: [(Transport, Serializer); 2],
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |(transport, serializer): (Transport, Serializer)| {
            let transport = match transport {
                Transport::RawSocket => "raw",
                Transport::WebSocket => "ws",
            };
            format!("{transport}-{}", serializer.name())
        };
        let [a, b] = self.sides.map(name);
        let sides = if a == b { a } else { format!("{a}+{b}") };
        write!(f, "{sides}-{}", self.nodes)
    }
}

/// The doors of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doors {
    pub(crate) raw: At,
    pub(crate) web: At,
}

impl Doors {
    pub(crate) const fn of(&self, transport: Transport) -> &At {
        match transport {
            Transport::RawSocket => &self.raw,
            Transport::WebSocket => &self.web,
        }
    }
}

/// What a case has.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) variant: Variant,
    pub(crate) log: Log,
    doors: [Doors; 2],
    tag: String,
    probes: Option<[Peer; 2]>,
    settled: u64,
}

impl Net {
    /// On these nodes. `tag` is in every URI.
    pub(crate) fn new(variant: Variant, doors: [Doors; 2], tag: String) -> Self {
        Self { variant, log: Log::default(), doors, tag, probes: None, settled: 0 }
    }

    /// A URI that no other run has.
    pub(crate) fn uri(&self, tail: &str) -> String {
        format!("com.{}.{tail}", self.tag)
    }

    /// The doors of a side.
    pub(crate) fn doors(&self, side: usize) -> &Doors {
        &self.doors[if self.variant.nodes == 1 { 0 } else { side }]
    }

    /// A connection without a session.
    pub(crate) fn connect(&self, name: &str, side: usize) -> Peer {
        let (transport, serializer) = self.variant.sides[side];
        Peer::connect(name, self.doors(side).of(transport), transport, serializer, &self.log)
    }

    /// A session that announces everything.
    pub(crate) fn peer(&self, name: &str, side: usize) -> Peer {
        self.join(name, side, &details())
    }

    /// A session that announces what is said.
    pub(crate) fn join(&self, name: &str, side: usize, details: &Value) -> Peer {
        let mut peer = self.connect(name, side);
        peer.join(REALM, details);
        peer
    }

    /// Two sessions that announce everything, one on each side.
    pub(crate) fn pair(&self) -> (Peer, Peer) {
        (self.peer("a", A), self.peer("b", B))
    }

    /// Two sessions, and a procedure that the second has registered, known on both nodes.
    pub(crate) fn callee(&mut self) -> (Peer, Peer, String, u64) {
        let (caller, mut callee) = self.pair();
        let procedure = self.uri("procedure");
        let registration = callee.register(&procedure, &none());
        self.settle();
        (caller, callee, procedure, registration)
    }

    /// Waits until each node knows what is subscribed and registered on the other up to now.
    ///
    /// Method: news of a node's routes are applied in order. Where a topic that is subscribed now is known, older ones are.
    pub(crate) fn settle(&mut self) {
        if self.variant.nodes == 1 {
            return;
        }
        let mut probes = self.probes.take().unwrap_or_else(|| {
            [A, B].map(|side| {
                let (transport, serializer) = (Transport::RawSocket, Serializer::MsgPack);
                let at = self.doors(side).of(transport);
                // Not in the case's transcript.
                let mut probe = Peer::connect("probe", at, transport, serializer, &Log::default());
                probe.join(REALM, &details());
                probe
            })
        });
        for side in [A, B] {
            self.settled += 1;
            let topic = self.uri(&format!("probe{}", self.settled));
            let [a, b] = &mut probes;
            let (here, there) = if side == A { (a, b) } else { (b, a) };
            probe(here, there, &topic);
        }
        self.probes = Some(probes);
    }
}

fn probe(here: &mut Peer, there: &mut Peer, topic: &str) {
    let request = here.next_request();
    here.send(&json!([32, request, {}, topic]));
    let (end, mut subscription) = (Instant::now() + PATIENCE, Value::Null);
    loop {
        match here.poll(Duration::from_millis(10)) {
            Got::Message(message) if message[0] == 33 => subscription = message[2].clone(),
            // An event of an older probe may come late.
            Got::Message(message) if message[0] == 36 && message[1] != subscription => {}
            Got::Message(message) if message[0] == 36 => return,
            Got::Nothing => {}
            other => panic!("while nodes should learn of each other's routes: {other:?}"),
        }
        assert!(Instant::now() < end, "a node does not learn of a subscription on another");
        there.publish(topic, &json!({ "acknowledge": true }), &Value::Null);
        // It was the one that subscribes in an older probe, whose events may come late, too.
        while there.receive()[0] != 17 {}
    }
}

/// Details of HELLO that do not announce a feature.
pub(crate) fn without(role: &str, feature: &str) -> Value {
    let mut details = details();
    let features = details["roles"][role]["features"].as_object_mut().unwrap();
    assert!(features.remove(feature).is_some(), "{role} announces no {feature} anyway");
    details
}

/// No options.
pub(crate) fn none() -> Value {
    json!({})
}
