//! What an attempt is: who does what to whom, under which configuration, and by what it is known to have worked.

/// A workload by namespace and name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The namespace.
    pub(crate) namespace: &'static str,
    /// The workload.
    pub(crate) workload: &'static str,
}

/// In the mesh.
pub(crate) const fn full(workload: &'static str) -> Place {
    Place {
        namespace: "full",
        workload,
    }
}

/// Outside the mesh.
pub(crate) const fn legacy(workload: &'static str) -> Place {
    Place {
        namespace: "legacy",
        workload,
    }
}

/// In no registry.
pub(crate) const OUTSIDE: Place = Place {
    namespace: "outside",
    workload: "server",
};

impl Place {
    /// The same workload where nothing is enforced.
    #[must_use]
    pub(crate) fn twin(self) -> Self {
        if self.namespace == "full" {
            return Self {
                namespace: "legacy",
                ..self
            };
        }
        self
    }
}

/// What is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A workload, by the name of its Service.
    Service(Place),
    /// A workload, by its pod's IPv4 address.
    Pod(Place),
    /// A workload, by its pod's IPv6 address.
    Pod6(Place),
    /// Every address of the control plane and certificate authority, at the ports that they have and those that Istio's have.
    Control,
    /// Where every part has its pages of metrics and health.
    Pages,
    /// The loopback address of the attacker's own pod.
    Loopback,
}

impl Target {
    /// The workload that is to receive it, where it is one.
    pub(crate) fn place(self) -> Option<Place> {
        match self {
            Self::Service(place) | Self::Pod(place) | Self::Pod6(place) => Some(place),
            Self::Control | Self::Pages | Self::Loopback => None,
        }
    }
}

/// What is sent. Each carries the attempt's token, by which the victim's record is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// An HTTP/1.1 request to that port: method and path, behind which the token is added, and further header lines.
    Http(u16, &'static str, &'static [&'static str]),
    /// Bytes over TCP to that port, before the token.
    Tcp(u16, &'static str),
    /// A TCP connection to that port by which nothing is sent before the server has spoken.
    Listen(u16),
    /// A datagram to that port.
    Udp(u16),
    /// A packet of that IP protocol.
    Raw(u8),
    /// A request to each of these ports.
    Ports(&'static [u16]),
    /// A request for that page.
    Page(&'static str),
}

/// As whom it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct As {
    /// Another user.
    pub(crate) uid: Option<u32>,
    /// Another group.
    pub(crate) gid: Option<u32>,
    /// A mark of the socket.
    pub(crate) mark: Option<u32>,
    /// A shell script that is run first; what it says and whether it fails counts for nothing.
    pub(crate) after: Option<&'static str>,
}

/// Nothing particular.
pub(crate) const ORDINARY: As = As {
    uid: None,
    gid: None,
    mark: None,
    after: None,
};

/// By what it is known to have got through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sign<'a> {
    /// The victim received the token.
    Received,
    /// The victim received the token without the caller's proven identity beside it.
    Anonymous,
    /// The victim received the token with this text beside it.
    Told(&'a str),
    /// Somebody opened a connection to this port of the victim.
    Opened(u16),
    /// The caller received an answer: of the control plane there is no other record.
    Answered,
}

/// One way in, or out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// Its stable name.
    pub(crate) id: &'static str,
    /// Rows of the semantics.
    pub(crate) of: &'static str,
    /// What is tried, in a sentence.
    pub(crate) title: &'static str,
    /// Who tries it.
    pub(crate) from: Place,
    /// What is aimed at.
    pub(crate) to: Target,
    /// What is sent.
    pub(crate) means: Means,
    /// As whom.
    pub(crate) who: As,
    /// The words of a built-in program that is started in the victim before; none where empty.
    pub(crate) serve: &'static str,
    /// Objects that are in force meanwhile, under both profiles; `$outside` stands for the address of the server outside.
    pub(crate) config: &'static [&'static str],
    /// And under the secure profile alone.
    pub(crate) secure: &'static [&'static str],
    /// And under Istio's defaults alone.
    pub(crate) istio: &'static [&'static str],
    /// By what it is known to have got through.
    pub(crate) sign: Sign<'static>,
    /// Why Istio's defaults let it through; `None` where they do not here.
    pub(crate) lets: Option<&'static str>,
    /// Why real Istio would let it slip past its sidecar, whatever is configured; under no profile do we.
    pub(crate) slips: Option<&'static str>,
}

impl Attempt {
    /// One of an ordinary caller, with nothing of its own in force.
    pub(crate) const fn new(
        id: &'static str,
        of: &'static str,
        title: &'static str,
        from: Place,
        to: Target,
        means: Means,
    ) -> Self {
        Self {
            id,
            of,
            title,
            from,
            to,
            means,
            who: ORDINARY,
            serve: "",
            config: &[],
            secure: &[],
            istio: &[],
            sign: Sign::Received,
            lets: None,
            slips: None,
        }
    }

    pub(crate) const fn who(mut self, who: As) -> Self {
        self.who = who;
        self
    }

    pub(crate) const fn serve(mut self, words: &'static str) -> Self {
        self.serve = words;
        self
    }

    pub(crate) const fn under(mut self, config: &'static [&'static str]) -> Self {
        self.config = config;
        self
    }

    pub(crate) const fn secure(mut self, config: &'static [&'static str]) -> Self {
        self.secure = config;
        self
    }

    pub(crate) const fn istio(mut self, config: &'static [&'static str]) -> Self {
        self.istio = config;
        self
    }

    pub(crate) const fn sign(mut self, sign: Sign<'static>) -> Self {
        self.sign = sign;
        self
    }

    pub(crate) const fn slips(mut self, why: &'static str) -> Self {
        self.slips = Some(why);
        self
    }

    pub(crate) const fn lets(mut self, why: &'static str) -> Self {
        self.lets = Some(why);
        self
    }
}
