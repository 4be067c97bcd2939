//! Many at once: commands race for names, addresses and ports, and everybody gets his own.

use std::collections::BTreeSet;
use std::process::Output;

use crate::support::{PATIENCE, in_world};
use crate::traffic::ping;
use crate::world::{BLUE, FAMILIES, World, eventually, namespaces};

const CROWD: usize = 24;

/// Runs these commands at the same time.
fn at_once(world: &World, lines: &[String]) -> Vec<Output> {
    let children: Vec<_> = lines
        .iter()
        .map(|line| {
            let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn containers_that_start_at_once_have_names_addresses_and_ports_of_their_own() {
    in_world(
        "crowd::containers_that_start_at_once_have_names_addresses_and_ports_of_their_own",
        |dir| {
            let world = World::new(dir);
            world.ok(&format!("network create blue {BLUE}"));
            let before = namespaces();
            let line = "run --detach --network blue -p 0:80 -- sleep infinity";
            for output in at_once(&world, &vec![line.to_owned(); CROWD]) {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            let ps = world.json("ps --json");
            let endpoints = ps.as_array().unwrap();
            let distinct = |field: &dyn Fn(&serde_json::Value) -> String| {
                endpoints.iter().map(field).collect::<BTreeSet<_>>().len()
            };
            assert_eq!(endpoints.len(), CROWD);
            assert_eq!(distinct(&|e| e["name"].to_string()), CROWD);
            assert_eq!(distinct(&|e| e["mac"].to_string()), CROWD);
            assert_eq!(distinct(&|e| e["addresses"][0].to_string()), CROWD);
            assert_eq!(distinct(&|e| e["addresses"][1].to_string()), CROWD);
            assert_eq!(distinct(&|e| e["published"][0]["host_ports"].to_string()), CROWD);

            let names = world.names();
            let (first, last) = (world.running(&names[0]), world.running(&names[CROWD - 1]));
            for family in FAMILIES {
                ping(&first.ns(), last.addr(family), PATIENCE).unwrap();
            }
            world.ok(&format!("stop -t 0 {}", names.join(" ")));
            assert!(world.names().is_empty());
            eventually("all namespaces are gone", PATIENCE, || namespaces() == before);
        },
    );
}

#[test]
fn of_those_who_want_the_same_one_gets_it_and_the_others_are_told_who() {
    in_world("crowd::of_those_who_want_the_same_one_gets_it_and_the_others_are_told_who", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        for wish in ["--name web", "--ip 10.20.0.50", "-p 1180:80", "--mac 02:00:00:00:00:50"] {
            let line = format!("run --detach --network blue {wish} -- sleep infinity");
            let outputs = at_once(&world, &vec![line; CROWD / 3]);
            let (won, lost): (Vec<_>, Vec<_>) =
                outputs.iter().partition(|output| output.status.success());
            assert_eq!(won.len(), 1, "{wish}");
            let winner = String::from_utf8_lossy(&won[0].stdout).trim().to_owned();
            for output in lost {
                assert_eq!(output.status.code(), Some(125));
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(text.contains(&format!("`{winner}`")), "{wish}: {text}");
            }
            assert_eq!(world.names(), std::slice::from_ref(&winner));
            world.ok(&format!("stop -t 0 {winner}"));
        }
        let lines = vec!["network create red --subnet 10.50.0.0/24".to_owned(); CROWD];
        let made = at_once(&world, &lines);
        assert_eq!(made.iter().filter(|output| output.status.success()).count(), 1);
    });
}
