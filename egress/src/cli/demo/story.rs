//! The steps, in the order in which they are told. Each shows first what was observed, and then holds it to the claim.

use std::fmt::Display;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{HOST as HOST_HEADER, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;

use super::agent::{Agent, Answer, Tunnel};
use super::screen::Screen;
use super::sidecar::Sidecar;
use super::upstream::{self, Seen, Upstream};
use super::{Unlike, claim, within};

/// The host that the upstream stands for.
pub(super) const HOST: &str = "api.example.com";
/// The paths that are admitted from the start.
pub(super) const V1: &str = "/v1/";
/// The paths that a reload adds.
const V2: &str = "/v2/";
/// A host that no route names.
const OTHER_HOST: &str = "paste.example.net";
/// What the agent tries to authenticate with.
const PLACEHOLDERS: [(&str, &str); 2] = [
    ("authorization", "Bearer placeholder"),
    ("x-api-key", "placeholder"),
];
/// How many events the stream has.
const EVENTS: usize = 3;
/// How many of the agent's requests the routes admit.
const ADMITTED: usize = 3;

/// A routes file with one route to the upstream for each prefix.
pub(super) fn routes(upstream: SocketAddr, prefixes: &[&str]) -> String {
    let route = |prefix: &&str| {
        format!(
            "  - host: {HOST}\n    path_allowlist: [{prefix}]\n    auth_scheme: Bearer\n    \
             token_env: EGRESS_TOKEN_0\n    connect_to: {upstream}\n"
        )
    };
    format!(
        "routes:\n{}",
        prefixes.iter().map(route).collect::<String>()
    )
}

/// What the steps work with.
pub(super) struct Story<'s> {
    pub(super) screen: &'s mut Screen,
    pub(super) upstream: Upstream,
    pub(super) sidecar: &'s mut Sidecar,
    pub(super) agent: Agent,
    pub(super) token: &'s str,
}

impl Story<'_> {
    /// Goes through all steps, up to the first that does not come out as claimed.
    pub(super) async fn tell(&mut self) -> Result<(), Unlike> {
        self.picture();
        let mut tunnel = match self.agent.connect(HOST).await? {
            Ok(tunnel) => tunnel,
            Err(refusal) => {
                let refusal = refusal.refusal();
                return Err(Unlike(format!("no tunnel to {HOST}: {refusal}")));
            }
        };
        self.admitted(&mut tunnel).await?;
        self.refused_path(&mut tunnel).await?;
        self.refused_host().await?;
        self.reloaded(&mut tunnel).await?;
        self.streamed(&mut tunnel).await?;
        drop(tunnel);
        self.token_went_one_way().await
    }

    fn picture(&mut self) {
        let egress = self.sidecar.address().to_string();
        let upstream = self.upstream.address();
        for line in [
            "agent --(placeholder)--> egress --(real token)--> upstream".to_owned(),
            format!("this process             {egress:<24}  {upstream},"),
            format!("{:24} `egress serve`            as {HOST}", ""),
        ] {
            self.screen.text(&line);
        }
    }

    async fn admitted(&mut self, tunnel: &mut Tunnel) -> Result<(), Unlike> {
        self.screen
            .title("1. An admitted request goes on with the real token instead of the placeholder");
        let answer = self.ask(tunnel, "/v1/models", Told::WithHeaders).await?;
        let seen = self.arrival(1, &answer.refusal())?;
        self.screen.side("upstream gets", &seen.line());
        let arrived = PLACEHOLDERS.map(|(name, _)| match seen.all(name).as_slice() {
            [] => format!("no {name}"),
            values => format!("{name}: {}", values.join(", ")),
        });
        self.screen.side("", &arrived.join("; "));
        self.accepted(&answer, &seen)
    }

    async fn refused_path(&mut self, tunnel: &mut Tunnel) -> Result<(), Unlike> {
        self.screen
            .title("2. What no route names is refused: a path, and a whole host at its CONNECT");
        let before = self.upstream.seen().len();
        let answer = self.ask(tunnel, "/admin/keys", Told::Briefly).await?;
        self.refused(&answer, "path_not_allowed", before)
    }

    async fn refused_host(&mut self) -> Result<(), Unlike> {
        let before = self.upstream.seen().len();
        self.screen
            .side("agent sends", &format!("CONNECT {OTHER_HOST}:443"));
        match self.agent.connect(OTHER_HOST).await? {
            Ok(_) => Err(Unlike(format!("a tunnel to {OTHER_HOST} was opened"))),
            Err(answer) => self.refused(&answer, "host_not_allowed", before),
        }
    }

    async fn reloaded(&mut self, tunnel: &mut Tunnel) -> Result<(), Unlike> {
        self.screen
            .title("3. The operator adds a route; it holds at once, on open connections too");
        let before = self.upstream.seen().len();
        let answer = self.ask(tunnel, "/v2/models", Told::Briefly).await?;
        self.refused(&answer, "path_not_allowed", before)?;
        let routes = routes(self.upstream.address(), &[V1, V2]);
        self.sidecar.reload(&routes)?;
        self.screen.side(
            "operator",
            &format!("adds {V2} to the routes file, sends SIGHUP"),
        );
        let outcome = self.sidecar.reloaded().await?;
        self.screen.side("egress logs", &outcome);
        let answer = self.ask(tunnel, "/v2/models", Told::Briefly).await?;
        let seen = self.arrival(before + 1, &answer.refusal())?;
        self.accepted(&answer, &seen)
    }

    async fn streamed(&mut self, tunnel: &mut Tunnel) -> Result<(), Unlike> {
        self.screen
            .title("4. A stream comes event by event: the next is sent once the last has arrived");
        let before = self.upstream.seen().len();
        let request = self.request(upstream::STREAM)?;
        self.announce(&request, Told::Briefly);
        let mut answer = tunnel.begin(request).await?;
        let seen = self.arrival(before + 1, &answer.status())?;
        claim(
            self.is_injected(&seen),
            "the upstream did not get the token",
        )?;
        let mut stream = self.upstream.stream().await?;
        for number in 1..=EVENTS {
            let event = format!("data: event {number} of {EVENTS}\n\n");
            stream.send(&event).await?;
            let what = format!("event {number} while the answer is open");
            let received = within(&what, answer.event()).await??;
            let (sent, got) = (event.trim_end(), received.trim_end());
            self.screen
                .side("upstream sends", &format!("{sent}    agent gets  {got}"));
            claim(
                received == event,
                "the agent got another event than was sent",
            )?;
        }
        drop(stream);
        let rest = within("end of the stream", answer.event()).await??;
        claim(rest.is_empty(), "the agent got more than was sent")
    }

    /// Ends the sidecar, so that its log is whole, and looks for the token on every side.
    async fn token_went_one_way(&mut self) -> Result<(), Unlike> {
        self.screen
            .title("5. The token is where it belongs, and nowhere else");
        let log = self.sidecar.terminate().await?.to_vec();
        let seen = self.upstream.seen();
        let carried = seen.iter().filter(|seen| self.is_injected(seen)).count();
        let received = self.agent.received();
        let leaked = received.occurrences(self.token);
        let answers = received.answers();
        let logged = log.iter().filter(|line| line.contains(self.token)).count();
        for (side, count) in [
            (
                "upstream got",
                format!("{} requests, {carried} with the token", seen.len()),
            ),
            (
                "agent got",
                format!("{answers} answers, the token {leaked} times in all they hold"),
            ),
            (
                "egress logged",
                format!("{} lines, {logged} with the token", log.len()),
            ),
        ] {
            self.screen.side(side, &count);
        }
        claim(
            seen.len() == ADMITTED,
            format!("not {ADMITTED} requests reached the upstream"),
        )?;
        claim(
            carried == seen.len(),
            "a request reached the upstream without the token",
        )?;
        claim(answers > ADMITTED, "not every answer was looked at")?;
        claim(leaked == 0, "the agent got the token")?;
        claim(!log.is_empty(), "there is no log to look at")?;
        claim(logged == 0, "the log holds the token")
    }

    /// Sends one request, and reads its answer to the end.
    async fn ask(&mut self, tunnel: &mut Tunnel, path: &str, told: Told) -> Result<Answer, Unlike> {
        let request = self.request(path)?;
        self.announce(&request, told);
        let answering = tunnel.begin(request).await?;
        within("end of the answer", answering.whole()).await?
    }

    /// A request with credentials of the agent's own.
    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, Unlike> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = Uri::try_from(path).map_err(|error| Unlike(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(HOST_HEADER, HeaderValue::from_static(HOST));
        for (name, value) in PLACEHOLDERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(request)
    }

    fn announce(&mut self, request: &Request<Full<Bytes>>, told: Told) {
        let (method, uri) = (request.method(), request.uri());
        self.screen
            .side("agent sends", &format!("{method} https://{HOST}{uri}"));
        if told == Told::Briefly {
            return;
        }
        let headers = request
            .headers()
            .iter()
            .filter(|(name, _)| *name != HOST_HEADER);
        let sent = headers
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        self.screen.side("", &sent.collect::<Vec<_>>().join("; "));
    }

    /// The newest request at the upstream, which is to be the `number`th. Otherwise what the agent got instead tells why.
    fn arrival(&self, number: usize, answer: &dyn Display) -> Result<Seen, Unlike> {
        let mut seen = self.upstream.seen();
        if seen.len() != number {
            let count = seen.len();
            let what =
                format!("the agent got {answer}, the upstream {count} requests and not {number}");
            return Err(Unlike(what));
        }
        seen.pop()
            .ok_or_else(|| Unlike("the upstream got nothing".into()))
    }

    fn is_injected(&self, seen: &Seen) -> bool {
        let expected = format!("Bearer {}", self.token);
        seen.all("authorization") == [expected.as_str()] && seen.all("x-api-key").is_empty()
    }

    /// Shows an answer, and claims that the upstream gave it to a request with the token and nothing of the agent's.
    fn accepted(&mut self, answer: &Answer, seen: &Seen) -> Result<(), Unlike> {
        let (status, body) = (answer.status(), answer.text());
        self.screen
            .side("agent gets", &format!("{status}: {}", body.trim_end()));
        claim(
            self.is_injected(seen),
            "the upstream did not get the token, and nothing but the token",
        )?;
        claim(
            status == StatusCode::OK,
            "the agent did not get the upstream's 200",
        )?;
        claim(
            body == upstream::MODELS,
            "the agent did not get the upstream's answer",
        )
    }

    /// Shows an answer, and claims that it is the sidecar's refusal and that the upstream heard nothing.
    fn refused(&mut self, answer: &Answer, code: &str, before: usize) -> Result<(), Unlike> {
        let reached = self.upstream.seen().len().saturating_sub(before);
        let heard = match reached {
            0 => "nothing".to_owned(),
            more => format!("{more} requests"),
        };
        let refusal = answer.refusal();
        self.screen.side(
            "agent gets",
            &format!("{refusal}; the upstream gets {heard}"),
        );
        claim(
            answer.status() == StatusCode::FORBIDDEN,
            "it was not refused",
        )?;
        claim(
            answer.code().as_deref() == Some(code),
            format!("the code is not {code}"),
        )?;
        claim(reached == 0, "a refused request reached the upstream")
    }
}

/// How much is told of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Briefly,
    WithHeaders,
}
