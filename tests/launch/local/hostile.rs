//! What an agent tries that knows how its box is made: links for the next launch, the host's devices and control groups,
//! files that outlive it, signals to whoever started it.

use crate::harness::clients::run;
use crate::launch::host::{Host, User};

#[tokio::test]
async fn a_link_in_the_path_shows_nothing_of_the_host() {
    for user in [User::Own, User::Ordinary] {
        let host = Host::new(user).await;
        host.write("home/project/placeholder", "");
        let login = host.path("home/.codex/auth.json");
        let before = std::fs::read(&login).expect("a login");
        // What an agent leaves behind: a directory of the operator's PATH that leads to the login, directly, and through a
        // link of its own, by way of which the mount was once left as it came.
        let bin = host.project().join("node_modules/.bin");
        for nested in [false, true] {
            let script = if nested {
                "mv node_modules nm && ln -s nm node_modules"
            } else {
                "mkdir node_modules && ln -s ../../.codex node_modules/.bin"
            };
            host.script(script).await.success();
            let script = format!(
                "cat {login}; echo spoilt >> {login}; ls {bin}/",
                login = login.display(),
                bin = bin.display()
            );
            let mut command = host.run(["bash", "-c", &script]);
            let path = format!("{}:/usr/bin:/bin", bin.display());
            let output = run(command.env("PATH", path)).await;
            assert_eq!(output.stdout, "", "{output:#?}");
            assert_eq!(std::fs::read(&login).expect("a login"), before);
        }
    }
}

