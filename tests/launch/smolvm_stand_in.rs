//! The stand-in for `smolvm` says what the real one says, for everything that needs no guest.

use serde_json::Value;

use crate::harness::command::Done;
use crate::harness::smolvm::{Smolvm, flags, image, word};

const TOKEN: &str = "SMOLVM_INTERCEPTOR_TOKEN";
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const GOOD: &str = "abABabababababababababababababababababababababababababababababab";

/// Command lines in the order in which they run, `IMAGE` and `DIR` being an image and a directory that exist.
const LINES: &[&str] = &[
    "bogus",
    "machine bogus",
    "machine ls --json",
    "machine ls --quiet",
    "machine ls extra",
    "machine ls",
    // Machines that are not there.
    "machine status -n nope",
    "machine status -n nope --json",
    "machine status -n nope --json --error-format json",
    "machine stop -n nope",
    "machine stop -n nope --error-format json",
    "machine delete -n nope -f",
    "machine delete -n nope -f --error-format json",
    "machine start -n nope",
    "machine exec --name nope -- true",
    "machine cp IMAGE/etc/hosts nope:/x",
    // What is refused at `create`.
    "machine create -n a -I IMAGE/nope",
    "machine create -n a -I IMAGE/nope --error-format json",
    "machine create -n a -I ''",
    "machine create -n a -I IMAGE -v /nope:/w",
    "machine create -n a -I IMAGE -v /nope:/w --error-format json",
    "machine create -n a -I IMAGE -v DIR:relative",
    "machine create -n a -I IMAGE -v DIR:relative --error-format json",
    "machine create -n a -I IMAGE -v DIR:/a -v IMAGE:/a",
    "machine create -n a -I IMAGE -v IMAGE/etc/hosts:/a",
    "machine create -n a -I IMAGE -v DIR:/a:/b",
    "machine create -n a -I IMAGE --mount-socket /x",
    "machine create -n a -I IMAGE --mount-socket :",
    "machine create -n a -I IMAGE --mount-socket /x:y",
    "machine create -n a -I IMAGE --mount-socket /x:/y;z",
    "machine create -n a -I IMAGE --mount-socket /x:/y --mount-socket /z:/y",
    "machine create -n a -I IMAGE --allow-host-pattern *",
    "machine create -n a -I IMAGE --allow-host-pattern ''",
    "machine create -n a -I IMAGE --allow-host-pattern *.*.test",
    "machine create -n a -I IMAGE --allow-host-pattern under_score.test",
    "machine create -n a -I IMAGE --allow-host-pattern 192.0.2.1",
    "machine create -n a -I IMAGE --cpus 0",
    "machine create -n a -I IMAGE --cpus x",
    "machine create -n a -I IMAGE --mem 10",
    "machine create -n a -I IMAGE --label x",
    "machine create -n '' -I IMAGE",
    "machine create -n a! -I IMAGE",
    "machine create -n a:b -I IMAGE",
    "machine create -n a/b -I IMAGE",
    "machine create -n -a -I IMAGE",
    "machine create -n _a -I IMAGE",
    "machine create -n a- -I IMAGE",
    "machine create -n .. -I IMAGE",
    "machine create a -I IMAGE",
    "machine create -n a -I IMAGE --wat",
    "machine create -n a -I IMAGE --net --net",
    "machine create -n a -n b -I IMAGE",
    "machine create -I IMAGE -n",
    "machine create -n a -I IMAGE -e",
    "machine ls --json",
    // Machines, and what can be done with them before they run.
    "machine create -n a -I IMAGE",
    "machine create -n a -I IMAGE",
    "machine create -n a -I IMAGE --error-format json",
    "machine create --name=b --image=IMAGE -vDIR:/workspace:ro -eK=V -w/workspace -unode --cpus=2 --mem 512 -p 8080:80 -- sleep 5",
    "machine create -n c -I IMAGE/ --net --mount-socket /nope.sock:/run/x.sock --",
    "machine create -n d -I IMAGE --allow-host-pattern Api.Test. --allow-host-pattern *.x.test",
    "machine create -n A_1 -I IMAGE --allow-cidr 192.0.2.1/32",
    "machine ls --json",
    "machine ls -q",
    "machine status -n b",
    "machine status -n b --json",
    "machine status -n c --json --error-format json",
    "machine exec -n a -- true",
    "machine exec --name a",
    "machine exec --name a --",
    "machine exec --name a --name b -- true",
    "machine exec --name a -- true",
    "machine exec --name a true --wat",
    "machine exec --name a --error-format json -- true",
    "machine exec --name a --error-format xml -- true",
    "machine exec --name a -it -w / -u node -e A=B --timeout 1m30s -- true",
    "machine exec --name a --stream -i -- true",
    "machine exec --name a -d -i -- true",
    "machine exec --name a -i -d -- true",
    "machine exec --name a -d --stream -- true",
    "machine exec --name a --timeout wat -- true",
    "machine exec --name a --timeout 5 -- true",
    "machine exec --name a --timeout 5x -- true",
    "machine exec --name a --timeout '' -- true",
    "machine exec --name a --timeout -- true",
    "machine cp a b",
    "machine cp a:/x b:/y",
    "machine cp a",
    "machine cp",
    "machine cp IMAGE/etc/hosts a:/x",
    "machine cp --mode 600 nope a:/x",
    "machine cp a:/x DIR/y",
    "machine cp x y z",
    "machine start -n a --egress-interceptor nonsense",
    "machine start -n a --egress-interceptor 127.0.0.1:7",
    "machine start -n nope --egress-interceptor 127.0.0.1:7",
    "machine start -n a --mediated-egress",
    "machine stop -n a",
    "machine stop -n a --error-format json",
    "machine stop -n a -t x",
    "machine stop -n",
    "machine delete -n a",
    "machine delete -n a --error-format json",
    "machine delete -f",
    "machine delete -n a -f -f",
    "machine delete -n a -f extra",
    "machine delete -n a -f",
    "machine delete -n a -f",
    "machine delete -n b --cascade",
    "machine delete --force --name=c",
    "machine ls -q",
];

#[tokio::test]
async fn the_stand_in_answers_as_the_real_program_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (image, empty) = (image(dir.path()), dir.path().join("empty"));
    std::fs::create_dir(&empty).expect("a directory");
    let (real, stand_in) = (Smolvm::real().await, Smolvm::stand_in());
    for line in LINES {
        let line = line
            .replace("IMAGE", word(&image))
            .replace("DIR", word(&empty));
        same(&line, &real, &stand_in, &[]).await;
    }
}

#[tokio::test]
async fn the_stand_in_takes_the_interceptor_as_the_real_program_does() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = image(dir.path());
    let (real, stand_in) = (Smolvm::real().await, Smolvm::stand_in());
    let create = format!("machine create -n a -I {} --net", word(&image));
    same(&create, &real, &stand_in, &[]).await;
    for token in ["", "abcd", "nothing", ZEROS, &GOOD[1..]] {
        let start = "machine start -n a --egress-interceptor 127.0.0.1:7";
        same(start, &real, &stand_in, &[(TOKEN, token)]).await;
    }
    for address in [
        "192.0.2.1:7",
        "127.0.0.1:0",
        "[::1]:0",
        "0.0.0.0:7",
        "localhost:7",
        "127.0.0.1",
    ] {
        let start = format!("machine start -n a --egress-interceptor {address}");
        same(&start, &real, &stand_in, &[(TOKEN, GOOD)]).await;
    }
    let start = "machine start -n nope --egress-interceptor 127.0.0.1:7";
    same(start, &real, &stand_in, &[(TOKEN, GOOD)]).await;
    // Once it was started with one, it is never started without.
    stand_in.fault("start", "the machine does not come up");
    for smolvm in [&real, &stand_in] {
        let start = "machine start -n a --egress-interceptor 127.0.0.1:7";
        let done = smolvm.run(start, &[(TOKEN, GOOD)]).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(
            done.stderr.starts_with("Starting machine 'a'...\n"),
            "{done:?}"
        );
        assert!(
            done.stderr.contains("\nError: agent operation failed: "),
            "{done:?}"
        );
    }
    same("machine start -n a", &real, &stand_in, &[]).await;
    same("machine status -n a", &real, &stand_in, &[]).await;
}

#[tokio::test]
async fn the_stand_in_has_no_flag_that_the_real_program_lacks() {
    let (real, stand_in) = (Smolvm::real().await, Smolvm::stand_in());
    for command in [
        "create", "start", "exec", "cp", "stop", "delete", "ls", "status",
    ] {
        let line = format!("machine {command} --help");
        let theirs = real.run(&line, &[]).await;
        let ours = stand_in.run(&line, &[]).await;
        assert_eq!((theirs.code, ours.code), (Some(0), Some(0)), "{line}");
        let (theirs, ours) = (flags(&theirs.stdout), flags(&ours.stdout));
        assert!(ours.len() > 4 && theirs.len() >= ours.len(), "{ours:?}");
        for flag in ours {
            assert!(
                theirs.contains(&flag),
                "{line}: {flag} is not among {theirs:?}"
            );
        }
    }
    let versions = (
        real.run("--version", &[]).await,
        stand_in.run("--version", &[]).await,
    );
    assert_eq!(versions.0.stdout, versions.1.stdout);
}

#[tokio::test]
async fn the_environment_of_create_reaches_the_workload_and_no_exec() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let image = image(dir.path());
    let smolvm = Smolvm::stand_in();
    let mounted = format!("{}:/workspace", word(dir.path()));
    let create = format!(
        "machine create -n a -I {} -v {mounted} -e KEY=value -- sh /workspace/work",
        word(&image)
    );
    std::fs::write(
        dir.path().join("work"),
        "env > /workspace/seen.new; mv /workspace/seen.new /workspace/seen; exec sleep 1000",
    )
    .expect("a writable directory");
    assert_eq!(smolvm.run(&create, &[]).await.code, Some(0));
    assert_eq!(smolvm.run("machine start -n a", &[]).await.code, Some(0));
    let wait = "machine exec --name a -- sh /workspace/wait";
    std::fs::write(
        dir.path().join("wait"),
        "until [ -e /workspace/seen ]; do sleep 0.01; done; env; exit 7",
    )
    .expect("a writable directory");
    let done = smolvm.run(wait, &[]).await;
    assert_eq!(done.code, Some(7), "{done:?}");
    assert!(!done.stdout.contains("KEY="), "{done:?}");
    let seen = std::fs::read_to_string(dir.path().join("seen")).expect("the workload ran");
    assert!(seen.contains("KEY=value"), "{seen}");
    assert_eq!(smolvm.run("machine stop -n a", &[]).await.code, Some(0));
    let done = smolvm.run("machine exec --name a -- true", &[]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
}

/// Runs a command line with both, and compares code, stdout and stderr.
async fn same(line: &str, real: &Smolvm, stand_in: &Smolvm, environment: &[(&str, &str)]) {
    let (theirs, ours) = tokio::join!(real.run(line, environment), stand_in.run(line, environment));
    let context = format!("smolvm {line}\nreal: {theirs:#?}\nstand-in: {ours:#?}");
    assert_eq!(theirs.code, ours.code, "{context}");
    assert_eq!(said(&theirs), said(&ours), "{context}");
    match (json(&theirs), json(&ours)) {
        (Some(theirs), Some(ours)) => assert!(holds(&theirs, &ours), "{context}"),
        _ => assert_eq!(printed(&theirs), printed(&ours), "{context}"),
    }
}

/// What stands on stderr; of a usage error, the error alone: the real program makes up a usage line to fit.
fn said(done: &Done) -> &str {
    match done.code {
        Some(2) => done.stderr.split("\n\n").next().unwrap_or_default(),
        _ => &done.stderr,
    }
}

/// What stands on stdout, but for whether a machine has got a directory yet, which hangs on more than is stood in for.
fn printed(done: &Done) -> &str {
    let rest = done.stdout.strip_prefix("Cleaning up data directory");
    rest.and_then(|rest| rest.split_once('\n'))
        .map_or(&done.stdout, |(_, rest)| rest)
}

fn json(done: &Done) -> Option<Value> {
    serde_json::from_str(&done.stdout).ok()
}

/// Whether the real answer holds all that the stand-in says. It says more, and machines are not made in the same second.
fn holds(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len()
                && theirs
                    .iter()
                    .zip(ours)
                    .all(|(theirs, ours)| holds(theirs, ours))
        }
        (Value::Object(theirs), Value::Object(ours)) => ours.iter().all(|(key, ours)| {
            let theirs = theirs.get(key);
            theirs.is_some_and(|theirs| theirs == ours || key == "created_at" && theirs.is_u64())
        }),
        _ => theirs == ours,
    }
}

#[test]
fn an_answer_that_lacks_something_is_told_apart() {
    let theirs = serde_json::json!([{"name": "a", "created_at": 1, "pid": null}]);
    assert!(holds(
        &theirs,
        &serde_json::json!([{"name": "a", "created_at": 2}])
    ));
    assert!(!holds(&theirs, &serde_json::json!([{"name": "b"}])));
    assert!(!holds(
        &theirs,
        &serde_json::json!([{"name": "a", "other": 1}])
    ));
    assert!(!holds(&theirs, &serde_json::json!([])));
}
