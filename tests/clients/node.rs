//! Node: the built-in `https` over a CONNECT made by hand, and undici with its proxy agent. Node 20's own `fetch`
//! ignores HTTPS_PROXY, which is why neither test uses it.

use crate::harness::clients::{Home, node_modules, run, system};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Upstream};

const REAL: &str = "real-token-of-the-host-e19d";

#[tokio::test]
async fn https_over_a_tunnel_made_by_hand() {
    check(
        r#"
const http = require("node:http"), https = require("node:https"), assert = require("node:assert");
const proxy = new URL(process.env.HTTPS_PROXY);
const connect = (authority, then) => {
  // Node names the proxy in Host, where RFC 9110 (7.2) wants the target. Plenty of tunnels are written so.
  const request = http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: authority });
  request.on("connect", then).end();
};
connect("elsewhere.test:443", (refusal) => {
  assert.equal(refusal.statusCode, 403);
  connect("api.test:443", (response, socket) => {
    assert.equal(response.statusCode, 200);
    const options = { host: "api.test", path: "/v1/echo", method: "POST", socket, agent: false,
                      headers: { authorization: "Bearer placeholder" } };
    https.request(options, async (answer) => {
      assert.equal(answer.statusCode, 200);
      let body = "";
      for await (const piece of answer) body += piece;
      assert.equal(body, "body");
      console.log("done");
    }).end("body");
  });
});
"#,
    )
    .await;
}

#[tokio::test]
async fn undici_with_its_proxy_agent() {
    check(
        r#"
const { ProxyAgent, fetch } = require("undici"), assert = require("node:assert");
const dispatcher = new ProxyAgent(process.env.HTTPS_PROXY);
(async () => {
  await assert.rejects(fetch("https://elsewhere.test/", { dispatcher }));
  const headers = { authorization: "Bearer placeholder" };
  const answer = await fetch("https://api.test/v1/echo", { dispatcher, method: "POST", body: "body", headers });
  assert.equal(answer.status, 200);
  assert.equal(await answer.text(), "body");
  console.log("done");
  await dispatcher.close();
})();
"#,
    )
    .await;
}

async fn check(script: &str) {
    let pki = Pki::new();
    let upstream = Upstream::tls(&pki)
        .require("authorization", format!("Bearer {REAL}"))
        .start(async |call| upstream::text(200, call.seen.body))
        .await;
    let routes = format!(
        "routes:\n  - host: api.test\n    auth_scheme: Bearer\n    token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
        upstream.addr()
    );
    let sidecar = Sidecar::with_routes(&pki, routes)
        .slot("EGRESS_TOKEN_0", REAL)
        .start()
        .await;
    let modules = node_modules().await;
    let home = Home::behind(&sidecar).set("NODE_PATH", modules.to_str().expect("a UTF-8 path"));
    let script = home.write("work/client.js", script);
    let output = run(home.command(system("node", "nodejs")).arg(script))
        .await
        .success();

    assert_eq!(output.stdout, "done\n");
    assert_eq!(
        upstream.only().all("authorization"),
        [format!("Bearer {REAL}")]
    );
    home.assert_free_of(REAL, &output);
    assert!(!sidecar.log().contains(REAL));
}
