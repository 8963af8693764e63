//! Changes of the rules: from one book to the next.

use pilot_wire::ipc::{Code, Failure};
use pilot_wire::policy::{
    Audience, Book, Field, GroupName, PortRules, PortSet, Request, Rules, Target, Verdict, Who,
};

/// What a change made, for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    /// Rules of a target.
    Rules(Target),
    /// Members of a group.
    Members(GroupName),
    /// Several things.
    Much,
}

/// Carries a change out on a copy of the book. `None` when the request is a question.
pub(super) fn apply(book: &mut Book, request: Request) -> Option<Result<Changed, Failure>> {
    match request {
        Request::Set { target, rules } => Some(on_rules(book, target, |mine| mine.merge(*rules))),
        Request::Unset { target, fields } => Some(unset(book, target, &fields)),
        Request::Ports { target, verdict, ports } => {
            Some(on_rules(book, target, |rules| decide(rules, verdict, &ports)))
        }
        Request::Audience { ports, audience } => Some(set_audience(book, &ports, audience)),
        Request::AddMember { group, member } => {
            book.groups.entry(group.clone()).or_default().members.insert(member);
            Some(Ok(Changed::Members(group)))
        }
        Request::RemoveMember { group, member } => Some(remove_member(book, group, member)),
        Request::Reset => {
            *book = Book::default();
            Some(Ok(Changed::Much))
        }
        Request::Show | Request::Peer { .. } | Request::Test { .. } | Request::Reload => None,
    }
}

fn on_rules(book: &mut Book, target: Target, change: impl FnOnce(&mut Rules)) -> Result<Changed, Failure> {
    change(rules_of(book, &target)?);
    tidy(book);
    Ok(Changed::Rules(target))
}

fn rules_of<'a>(book: &'a mut Book, target: &Target) -> Result<&'a mut Rules, Failure> {
    Ok(match target {
        Target::All => &mut book.all,
        Target::Strangers => &mut book.strangers,
        Target::Group(name) => &mut book.groups.get_mut(name).ok_or_else(|| no_group(name))?.rules,
        Target::Peer(who) => book.nodes.entry(*who).or_default(),
    })
}

fn no_group(name: &GroupName) -> Failure {
    Failure::new(Code::NotFound, format!("there is no group `{name}`"))
        .with_hint(format!("a group begins with its first member: pilotctl policy group add {name} NODE"))
}

fn unset(book: &mut Book, target: Target, fields: &[Field]) -> Result<Changed, Failure> {
    on_rules(book, target, |rules| match fields {
        [] => *rules = Rules::default(),
        fields => fields.iter().for_each(|field| rules.clear(*field)),
    })
}

fn decide(rules: &mut Rules, verdict: Verdict, ports: &PortSet) {
    rules.ports.get_or_insert_default().decide(verdict, ports);
}

/// What was said about the ports is forgotten everywhere, so that the audience is what counts. A target whose rules
/// say "these ports and no others" keeps saying so.
fn set_audience(book: &mut Book, ports: &PortSet, audience: Audience) -> Result<Changed, Failure> {
    let groups = book.groups.values_mut().map(|group| &mut group.rules);
    let all = [&mut book.all, &mut book.strangers].into_iter().chain(groups).chain(book.nodes.values_mut());
    for rules in all {
        if let Some(said) = &mut rules.ports {
            said.forget(ports);
        }
    }
    match audience {
        Audience::Everybody => decide(&mut book.all, Verdict::Allow, ports),
        Audience::Trusted => {
            decide(&mut book.all, Verdict::Allow, ports);
            decide(&mut book.strangers, Verdict::Deny, ports);
        }
        Audience::Only(targets) => {
            decide(&mut book.all, Verdict::Deny, ports);
            for target in targets {
                decide(rules_of(book, &target)?, Verdict::Allow, ports);
            }
        }
        Audience::Nobody => decide(&mut book.all, Verdict::Deny, ports),
    }
    tidy(book);
    Ok(Changed::Much)
}

fn remove_member(book: &mut Book, group: GroupName, member: Option<Who>) -> Result<Changed, Failure> {
    let Some(found) = book.groups.get_mut(&group) else { return Err(no_group(&group)) };
    match member {
        None => {
            book.groups.remove(&group);
        }
        Some(who) => {
            if !found.members.remove(&who) {
                return Err(Failure::new(Code::NotFound, format!("`{who}` is not in the group `{group}`"))
                    .with_hint("see its members: pilotctl policy"));
            }
        }
    }
    Ok(Changed::Members(group))
}

/// Rules that say nothing are left out.
fn tidy(book: &mut Book) {
    let groups = book.groups.values_mut().map(|group| &mut group.rules);
    let all = [&mut book.all, &mut book.strangers].into_iter().chain(groups).chain(book.nodes.values_mut());
    for rules in all {
        if rules.ports.as_ref().is_some_and(PortRules::is_empty) {
            rules.ports = None;
        }
    }
    book.nodes.retain(|_, rules| !rules.is_empty());
}

#[cfg(test)]
mod tests {
    use pilot_wire::policy::Limit;

    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn ports(text: &str) -> PortSet {
        text.parse().unwrap()
    }

    fn changed(book: &mut Book, request: Request) -> Changed {
        apply(book, request).unwrap().unwrap()
    }

    #[test]
    fn a_field_is_set_and_taken_back_without_touching_the_others() {
        let mut book = Book::default();
        let rules = Rules { max_message: Some(Limit::Of(10)), tasks: Some(false), ..Rules::default() };
        changed(&mut book, Request::Set { target: target("7"), rules: Box::new(rules) });
        let rules = Rules { tasks: Some(true), ..Rules::default() };
        changed(&mut book, Request::Set { target: target("7"), rules: Box::new(rules) });
        let now = book.rules(&target("7")).unwrap();
        assert_eq!((now.max_message, now.tasks), (Some(Limit::Of(10)), Some(true)));
        changed(&mut book, Request::Unset { target: target("7"), fields: vec![Field::Tasks] });
        assert_eq!(book.rules(&target("7")).unwrap().max_message, Some(Limit::Of(10)));
        changed(&mut book, Request::Unset { target: target("7"), fields: Vec::new() });
        assert_eq!(book, Book::default(), "rules that say nothing are no rules");
    }

    #[test]
    fn ports_are_allowed_and_denied_one_after_the_other() {
        let mut book = Book::default();
        let order = |verdict, text| Request::Ports { target: Target::All, verdict, ports: ports(text) };
        changed(&mut book, order(Verdict::Deny, "80-90"));
        changed(&mut book, order(Verdict::Allow, "85"));
        let said = book.all.ports.as_ref().unwrap();
        assert_eq!((said.deny.to_string(), said.allow.to_string()), ("80-84,86-90".into(), "85".into()));
        changed(&mut book, order(Verdict::Deny, "85"));
        assert_eq!(book.all.ports.as_ref().unwrap().deny, ports("80-90"));
    }

    #[test]
    fn an_audience_replaces_what_was_said_about_its_ports_only() {
        let mut book = Book::default();
        let allow =
            Request::Ports { target: target("7"), verdict: Verdict::Allow, ports: ports("1000,1003") };
        changed(&mut book, allow);
        let order = Request::Audience { ports: ports("1003"), audience: Audience::Only(vec![target("8")]) };
        changed(&mut book, order);
        let said = |text| book.rules(&target(text)).unwrap().ports.clone().unwrap();
        assert_eq!(said("7").allow, ports("1000"));
        assert_eq!(said("8").allow, ports("1003"));
        assert_eq!(said("all").deny, ports("1003"));
        changed(&mut book, Request::Audience { ports: ports("1003"), audience: Audience::Trusted });
        assert_eq!(book.rules(&target("8")), None);
        assert_eq!(book.strangers.ports.as_ref().unwrap().deny, ports("1003"));
        assert_eq!(book.all.ports.as_ref().unwrap().deny, PortSet::default());
    }

    #[test]
    fn a_group_begins_with_a_member_and_ends_with_its_rules() {
        let mut book = Book::default();
        let group: GroupName = "workers".parse().unwrap();
        let rules = Box::new(Rules { tasks: Some(false), ..Rules::default() });
        let set = Request::Set { target: target("group:workers"), rules };
        assert_eq!(apply(&mut book, set.clone()).unwrap().unwrap_err().code, Code::NotFound);
        let member: Who = "7".parse().unwrap();
        changed(&mut book, Request::AddMember { group: group.clone(), member });
        changed(&mut book, set);
        let other = Request::RemoveMember { group: group.clone(), member: Some("8".parse().unwrap()) };
        assert_eq!(apply(&mut book, other).unwrap().unwrap_err().code, Code::NotFound);
        changed(&mut book, Request::RemoveMember { group: group.clone(), member: Some(member) });
        assert!(book.groups[&group].members.is_empty());
        changed(&mut book, Request::RemoveMember { group, member: None });
        assert_eq!(book, Book::default());
    }
}
