//! Examples at the end of each command's help, all in one place: the test below reads every line of them as a shell and the
//! command line would, and none is missing.

use clap::Command;

/// Words that lead to a command, and what one might type.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "serve",
        "headwater serve
headwater serve --data-dir /var/lib/headwater --memory-limit 2GiB --chunks s3://bucket/prefix
headwater serve --controller 0.0.0.0:9090 --segment-store 0.0.0.0:12345 --advertise store.example --tls self-signed --auth-passwords users",
    ),
    (
        "demo",
        "headwater demo
headwater demo flights.csv --key-column 10",
    ),
    (
        "check",
        "headwater check headwater-data
headwater check /backups/monday --json",
    ),
    (
        "backup",
        "headwater backup /backups/monday
headwater backup s3://bucket/monday --credentials operator",
    ),
    ("restore", "headwater restore /backups/monday headwater-data"),
    (
        "doctor",
        "headwater doctor
headwater doctor /var/lib/headwater --json",
    ),
    (
        "user add",
        "headwater user add users ada --grant 'prn::*,READ_UPDATE'
head -c 18 /dev/urandom | base64 | tee password | headwater user add users worker --grant 'prn::/scope:shop,READ' --grant 'prn::/scope:shop/*,READ_UPDATE'",
    ),
    ("user remove", "headwater user remove users ada"),
    ("user list", "headwater user list users"),
    ("scope create", "headwater scope create shop"),
    (
        "scope list",
        "headwater scope list
headwater scope list --server tls://store.example --ca ca.pem --credentials operator",
    ),
    ("scope delete", "headwater scope delete shop --recursive"),
    (
        "stream create",
        "headwater stream create shop/orders --create-scope --segments 4
headwater stream create shop/clicks --events-per-second 1000 --retain-for 7d --tag web",
    ),
    (
        "stream list",
        "headwater stream list shop
headwater stream list shop --json | jq -r .stream",
    ),
    ("stream describe", "headwater stream describe shop/orders"),
    ("stream subscribers", "headwater stream subscribers shop/orders"),
    ("stream remove-writer", "headwater stream remove-writer shop/orders WRITER"),
    (
        "stream update",
        "headwater stream update shop/orders --retain-bytes 10GiB
headwater stream update shop/orders --retain-all",
    ),
    ("stream scale", "headwater stream scale shop/orders --segments 8"),
    (
        "stream truncate",
        "headwater stream truncate shop/orders --at tail
headwater stream truncate shop/orders --at \"$(cat yesterday)\"",
    ),
    ("stream seal", "headwater stream seal shop/orders"),
    ("stream delete", "headwater stream delete shop/orders"),
    (
        "stream cut",
        "headwater stream cut shop/orders > yesterday
headwater stream cut shop/orders --after head --bytes 1GiB",
    ),
    (
        "event write",
        "headwater event write shop/orders --key-field customer < orders.jsonl
printf 'a\\tone\\nb\\ttwo\\n' | headwater event write shop/orders --key-before-tab
headwater event write shop/pictures --whole picture.png --key cat
headwater event write shop/orders orders.jsonl --key-field customer --numbered orders.jsonl",
    ),
    (
        "event read",
        "headwater event read shop/orders
headwater event read shop/orders --from \"$(headwater stream cut shop/orders)\" --follow
headwater event read shop/orders --to \"$(headwater stream cut shop/orders --after head --bytes 1MiB)\"
headwater event read shop/orders --json | jq -r .text",
    ),
    ("event tail", "headwater event tail shop/orders --containing refund"),
    ("event get", "headwater event get shop/orders/0.#epoch.0:0-21"),
    (
        "group create",
        "headwater group create shop/billing shop/orders
headwater group create shop/audit shop/orders shop/returns --from \"$(headwater stream cut shop/orders)\"",
    ),
    ("group list", "headwater group list shop"),
    ("group describe", "headwater group describe shop/billing"),
    (
        "group read",
        "headwater group read shop/billing --reader worker-1 --idle 10s
headwater group read shop/billing --reader worker-1 --dead-after 10s --json | jq -r .text
coproc headwater group read shop/billing --json --acknowledge
while read -r event <&\"${COPROC[0]}\"; do
  handle \"$event\" && jq -r .pointer <<< \"$event\" >&\"${COPROC[1]}\"
done",
    ),
    ("group checkpoint", "headwater group checkpoint shop/billing before-release"),
    (
        "group reset",
        "headwater group reset shop/billing shop/orders
headwater group reset shop/billing shop/orders --from \"$(cat yesterday)\"",
    ),
    ("group offline", "headwater group offline shop/billing worker-1"),
    ("group delete", "headwater group delete shop/billing"),
    (
        "bytes write",
        "headwater bytes write shop/backup orders.tar
pg_dump shop | headwater bytes write shop/dump",
    ),
    (
        "bytes read",
        "headwater bytes read shop/backup > orders.tar
headwater bytes read shop/log --from -4KiB --follow",
    ),
    ("bytes describe", "headwater bytes describe shop/log"),
    ("bytes truncate", "headwater bytes truncate shop/log --to 1048576"),
    ("table create", "headwater table create shop/stock --key-bytes 8 --partitions 4"),
    ("table list", "headwater table list shop"),
    ("table describe", "headwater table describe shop/stock"),
    (
        "table get",
        "headwater table get shop/stock apple---
headwater table get shop/stock 6170706c652d2d2d --hex --json",
    ),
    (
        "table put",
        "headwater table put shop/stock apple--- 10 --if-absent
headwater table put shop/stock apple--- 9 --if-version 0",
    ),
    ("table remove", "headwater table remove shop/stock apple---"),
    ("table entries", "headwater table entries shop/stock --from a --to b"),
    ("table delete", "headwater table delete shop/stock"),
    ("txn list", "headwater txn list shop/orders"),
    ("txn state", "headwater txn state shop/orders 00000000-0000-0000-0000-00000000002a"),
    ("txn commit", "headwater txn commit shop/orders 00000000-0000-0000-0000-00000000002a"),
    ("txn abort", "headwater txn abort shop/orders 00000000-0000-0000-0000-00000000002a"),
    (
        "explain",
        "headwater explain 69
headwater explain unavailable",
    ),
    ("completions", "headwater completions bash > /etc/bash_completion.d/headwater"),
    ("man", "headwater man /usr/local/share/man/man1"),
    (
        "config show",
        "headwater config show --origin
headwater config show --memory-limit 2GiB > headwater.toml",
    ),
    ("bench probe", "headwater bench probe --dir /var/lib"),
    ("bench write", "headwater bench write --own --writers 4 --segments 4"),
    ("bench tail", "headwater bench tail --own --rate 1000"),
    (
        "bench fanout",
        "headwater bench fanout --own
headwater bench fanout --server 10.0.0.5:12345 --readers 100 --size 100",
    ),
    ("bench catchup", "headwater bench catchup --own --mib 1024"),
    ("bench segments", "headwater bench segments --own --count 100000"),
    ("bench conns", "headwater bench conns --own --connections 10000"),
    (
        "bench mixed",
        "headwater bench mixed --own
headwater bench mixed --own --beside readers --readers 2 --mib 1024",
    ),
    (
        "bench txn",
        "headwater bench txn --own
headwater bench txn --server 10.0.0.5:12345 --controller 10.0.0.5:9090 --writers 4 --events 1000",
    ),
    (
        "bench kv",
        "headwater bench kv --own
headwater bench kv --server 10.0.0.5:12345 --keys 1000000 --size 1024 --clients 4",
    ),
    (
        "bench scale",
        "headwater bench scale --own
headwater bench scale --server 10.0.0.5:12345 --controller 10.0.0.5:9090 --rate 10000 --every 0.5 --seconds 30",
    ),
    ("bench recover", "headwater bench recover --mib 1024 --writers 4"),
    ("bench null", "headwater bench null"),
    ("bench genuine", "headwater bench genuine --client ./genuine"),
    ("bench clients", "headwater bench clients --sizes 100,1024 --with rust=./genuine"),
    ("bench growth", "headwater bench growth --only keys --keys 10000000"),
    ("bench all", "headwater bench all --rounds 3 --json > results.json"),
    ("bench load", "headwater bench load --scope bench --stream load --size 1000"),
];

/// The command with examples at the end of each command's help.
pub(crate) fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, lines)| with_example(command, path, lines))
}

fn with_example(command: Command, path: &str, lines: &str) -> Command {
    let Some((name, rest)) = path.split_once(' ').or((!path.is_empty()).then_some((path, ""))) else {
        let indented: String = lines.lines().map(|line| format!("\n  {line}")).collect();
        return command.after_help(format!("Examples:{indented}"));
    };
    command.mut_subcommand(name, |inner| with_example(inner, rest, lines))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Every command that has none below it, by the words that lead to it.
    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        let below: Vec<_> = command.get_subcommands().filter(|one| one.get_name() != "help").collect();
        if below.is_empty() {
            found.push(path.to_owned());
        }
        for one in below {
            leaves(one, format!("{path} {}", one.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_command_has_examples_and_no_example_is_of_another() {
        let mut commands = Vec::new();
        leaves(&crate::Command::command(), "", &mut commands);
        let mut with: Vec<_> = EXAMPLES.iter().map(|(path, _)| (*path).to_owned()).collect();
        commands.sort();
        with.sort();
        assert_eq!(commands, with);
        for (path, lines) in EXAMPLES {
            let begins = format!("headwater {path}");
            assert!(lines.contains(&begins), "{path}: {lines}");
        }
        let mut command = with_examples(crate::Command::command());
        let help = command.find_subcommand_mut("scope").unwrap().find_subcommand_mut("create").unwrap().render_help();
        assert!(help.to_string().contains("\nExamples:\n  headwater scope create shop\n"), "{help}");
    }

    /// The words of each `headwater …` in a line, as a shell finds them.
    fn commands_of(line: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for part in line.split(" | ") {
            let words = shlex::split(part).unwrap_or_else(|| panic!("no shell reads {part:?}"));
            let mut words = words.into_iter().skip_while(|word| word != "headwater").peekable();
            if words.peek().is_none() {
                continue;
            }
            let is_argument = |word: &String| !word.starts_with(['<', '>']);
            let words: Vec<_> = words.take_while(is_argument).collect();
            for word in &words {
                if let Some(inner) = word.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')) {
                    found.extend(commands_of(inner));
                }
            }
            found.push(words);
        }
        found
    }

    #[test]
    fn every_example_is_what_its_command_takes() {
        let mut count = 0;
        for (path, lines) in EXAMPLES {
            for words in lines.lines().flat_map(commands_of) {
                count += 1;
                match crate::Command::command().try_get_matches_from(&words) {
                    Ok(_) => {}
                    Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {}
                    Err(error) => panic!("{path}: {words:?}: {error}"),
                }
            }
        }
        assert!(count > EXAMPLES.len(), "{count} commands were looked at");
    }
}
