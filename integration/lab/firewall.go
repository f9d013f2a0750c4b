package lab

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Place is a chain of a host's firewall.
type Place struct {
	Host  string // Node, CoreDNS, Upstream or a client pod
	Table string // of iptables: raw, mangle, filter
	Chain string // PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING
}

// Places along the way of a lookup, in the order in which a query from a pod
// meets them.
var (
	NodeRawPrerouting    = Place{Node, "raw", "PREROUTING"}    // before connection tracking
	NodeManglePrerouting = Place{Node, "mangle", "PREROUTING"} // before the Service's DNAT
	NodeForward          = Place{Node, "filter", "FORWARD"}    // after the DNAT
	NodePostrouting      = Place{Node, "mangle", "POSTROUTING"}
	NodeInput            = Place{Node, "filter", "INPUT"}
	NodeOutput           = Place{Node, "filter", "OUTPUT"}
	ServerInput          = Place{CoreDNS, "filter", "INPUT"}
	ServerOutput         = Place{CoreDNS, "filter", "OUTPUT"}
	UpstreamInput        = Place{Upstream, "filter", "INPUT"}
	UpstreamOutput       = Place{Upstream, "filter", "OUTPUT"}
)

// ClientOutput is where a client pod's own firewall sees its queries.
func ClientOutput(pod string) Place { return Place{pod, "filter", "OUTPUT"} }

// ClientInput is where a client pod's own firewall sees responses to it.
func ClientInput(pod string) Place { return Place{pod, "filter", "INPUT"} }

// Messages says which messages a Match means.
type Messages int

// Which way a message goes, told by the side of port 53.
const (
	QueriesAndResponses Messages = iota
	Queries
	Responses
)

// Leg says on which part of a lookup's way a Match looks.
type Leg int

// ClientLeg is between a client and CoreDNS, UpstreamLeg between CoreDNS (or
// anybody) and the upstream network.
const (
	AnyLeg Leg = iota
	ClientLeg
	UpstreamLeg
)

// Match says which packets a rule means; the zero value means every DNS packet
// to or from port 53, UDP and TCP, IPv4 and IPv6.
type Match struct {
	Messages Messages
	// Network is udp or tcp; empty means both. A rule for TCP also meets the
	// handshake, unless Name is set.
	Network string
	// Family is 4 or 6; 0 means both.
	Family int
	Leg    Leg
	// Port is the server's; 0 means 53.
	Port uint16
	// Name restricts the rule to packets that hold this question, in any case
	// of letters (the string match of iptables).
	Name string
	// Extra are more matches in the words of iptables, for example
	// -m statistic --mode nth --every 2.
	Extra []string
}

// DropAt drops the packets that match at a place, with a rule in front of all
// others there, as a user's firewall would. undo takes the rule away again; it
// need not be called before Close, and calling it twice does nothing more.
func (l *Lab) DropAt(place Place, match Match) (undo func(), err error) {
	return l.RuleAt(place, match, "-j", "DROP")
}

// RuleAt is DropAt with another target, for example -j REJECT.
func (l *Lab) RuleAt(place Place, match Match, target ...string) (undo func(), err error) {
	host := l.Host(place.Host)
	var added [][]string
	undo = l.undoOnce(func() error {
		for _, rule := range added {
			if err := host.iptables(rule[0], append([]string{"-t", place.Table, "-D", place.Chain}, rule[1:]...)...); err != nil {
				return err
			}
		}
		return nil
	})
	for _, rule := range match.rules() {
		rule = append(rule, target...)
		if err := host.iptables(rule[0], append([]string{"-t", place.Table, "-I", place.Chain}, rule[1:]...)...); err != nil {
			undo()
			return nil, err
		}
		added = append(added, rule)
	}
	return undo, nil
}

// rules are the rules that a match takes: the command, then its arguments.
func (m Match) rules() [][]string {
	var rules [][]string
	for _, family := range []int{4, 6} {
		if m.Family != 0 && m.Family != family {
			continue
		}
		for _, network := range []string{"udp", "tcp"} {
			if m.Network != "" && m.Network != network {
				continue
			}
			if m.Messages != Responses {
				rules = append(rules, m.rule(family, network, "--dport", "-d"))
			}
			if m.Messages != Queries {
				rules = append(rules, m.rule(family, network, "--sport", "-s"))
			}
		}
	}
	return rules
}

// rule writes one rule; port and address tell the server's side of the packet.
func (m Match) rule(family int, network, port, address string) []string {
	command, upstream := "iptables", UpstreamNetV4
	if family == 6 {
		command, upstream = "ip6tables", UpstreamNetV6
	}
	rule := []string{command}
	switch m.Leg {
	case ClientLeg:
		rule = append(rule, "!", address, upstream.String())
	case UpstreamLeg:
		rule = append(rule, address, upstream.String())
	}
	number := m.Port
	if number == 0 {
		number = 53
	}
	rule = append(rule, "-p", network, "-m", network, port, strconv.Itoa(int(number)))
	if m.Name != "" {
		rule = append(rule, "-m", "string", "--algo", "bm", "--icase", "--hex-string", hexName(m.Name))
	}
	return append(rule, m.Extra...)
}

// hexName writes a name in wire format for the string match.
func hexName(name string) string {
	wire := make([]byte, 256)
	n, err := dns.PackDomainName(dns.CanonicalName(name), wire, 0, nil, false)
	if err != nil {
		panic(fmt.Sprintf("%q is no domain name: %v", name, err)) // a mistake in the test
	}
	return fmt.Sprintf("|%x|", wire[:n])
}

// iptables runs iptables or ip6tables in the host's namespace.
func (h *Host) iptables(command string, args ...string) error {
	return h.firewall(command, append([]string{"-w"}, args...), "")
}

// restore replaces the tables named in rules.
func (h *Host) restore(command, rules string) error {
	return h.firewall(command, []string{"-w"}, rules)
}

func (h *Host) firewall(command string, args []string, stdin string) error {
	path, err := findTool(command)
	if err != nil {
		return err
	}
	return h.Do(func() error {
		cmd := exec.Command(path, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s in %s: %w: %s", command, strings.Join(args, " "), h.Name, err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}
