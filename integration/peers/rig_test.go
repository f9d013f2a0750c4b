//go:build peers

package peers

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// The pods beside CoreDNS's.
const (
	client   = "client"
	dnsdist  = "dnsdist"
	recursor = "recursor"
)

// patience is how long a record, a packet or an export may take on a slow machine.
const patience = 40 * time.Second

// rig is a lab with CoreDNS between its peers.
type rig struct {
	*lab.Lab
	t        *testing.T
	root     string         // of the peers
	dir      string         // in there, with their configuration
	server   netip.AddrPort // whom the client asks
	dnsdist  *exports       // nil without it
	recursor *exports       // nil without it
	packets  string         // a file with what CoreDNS sends and gets
}

// newRig builds a lab without servers.
func newRig(t *testing.T) *rig {
	t.Helper()
	root, err := lab.Binary("peers")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "lab-")
	if err != nil {
		t.Fatal(err)
	}
	// Before the lab, so that it is removed after the programs have ended.
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &rig{Lab: lab.New(t, lab.Config{Clients: []string{client, dnsdist, recursor}, Upstreams: 1}), t: t, root: root, dir: dir}
}

// records is the file with CoreDNS's records.
func (r *rig) records() string { return filepath.Join(r.Dir(), "queries.jsonl") }

// start starts CoreDNS, with dnsdist in front of it or the recursor behind it.
func (r *rig) start(front, back bool) {
	r.t.Helper()
	upstream := r.Upstream(0).V4()
	if back {
		r.recursor = listen(r.t, r.Host(recursor))
		r.peer(recursor, "pdns_recursor", "recursor.yml", recursorConfig(upstream), "--config-dir=$DIR")
		upstream = netip.AddrPortFrom(r.Host(recursor).V4, 53)
	}
	if _, err := r.StartCoreDNS(r.corefile(upstream)); err != nil {
		r.t.Fatal(err)
	}
	r.server = netip.AddrPortFrom(r.Host(lab.CoreDNS).V4, 53)
	if front {
		r.dnsdist = listen(r.t, r.Host(dnsdist))
		r.peer(dnsdist, "dnsdist", "dnsdist.lua", dnsdistConfig(r.server), "--supervised", "-C", "$DIR/dnsdist.lua")
		r.server = netip.AddrPortFrom(r.Host(dnsdist).V4, 53)
	}
	r.capture()
}

// corefile accepts dnsdist's option and puts its own into what goes on. Below
// unsampled.test. it records only what it must.
func (r *rig) corefile(upstream netip.AddrPort) string {
	block := func(zone, sample string) string {
		return fmt.Sprintf("%s {\n dnstrace {\n output file %s\n output unix %s\n accept %s/32\n stamp all\n sample %s\n slow 1h\n }\n forward . %s\n}\n",
			zone, r.records(), r.RecordSocket(), r.Host(dnsdist).V4, sample, upstream)
	}
	return block(".", "1") + block("unsampled.test", "0")
}

// peer starts a program of bin/peers, which is its root. In its configuration and in args,
// $DIR is the folder with its file.
func (r *rig) peer(host, program, file, config string, args ...string) {
	r.t.Helper()
	inside := func(text string) string {
		return strings.ReplaceAll(text, "$DIR", "/"+filepath.Base(r.dir))
	}
	if err := os.WriteFile(filepath.Join(r.dir, file), []byte(inside(config)), 0o600); err != nil {
		r.t.Fatal(err)
	}
	command := []string{r.root, program}
	for _, arg := range args {
		command = append(command, inside(arg))
	}
	if _, err := r.Start(lab.Spec{Name: program, Host: host, Path: "chroot", Args: command, Ready: lab.ReadyListening(53)}); err != nil {
		r.t.Fatal(err)
	}
}

// dnsdistConfig traces every query and tells backend so, but for some zones: below passed.…
// it traces none, and below adopted.test. the option of its clients counts.
func dnsdistConfig(backend netip.AddrPort) string {
	return fmt.Sprintf(`setLocal("0.0.0.0:53")
setACL({"0.0.0.0/0"})
newServer({address="%s", healthCheckMode="up"})
setSecurityPollSuffix("")
setOpenTelemetryTracing(true)
logger = newRemoteLogger("%s")
addAction(QNameSuffixRule({"passed.test.", "passed.unsampled.test."}), AllowAction())
addAction(QNameSuffixRule("adopted.test."), SetTraceAction(true, {useIncomingTraceparent=true, sendDownstreamTraceparent=true, remoteLoggers={logger}}))
addAction(NotRule(QNameSuffixRule("adopted.test.")), SetTraceAction(true, {sendDownstreamTraceparent=true, remoteLoggers={logger}}))
`, backend, exportAddr)
}

// recursorConfig asks upstream for everything, and traces every query.
func recursorConfig(upstream netip.AddrPort) string {
	return fmt.Sprintf(`incoming: {listen: ["0.0.0.0:53"], allow_from: ["0.0.0.0/0"]}
dnssec: {validation: "off"}
recursor:
  forward_zones_recurse: [{zone: ".", forwarders: ["%s"]}]
  event_trace_enabled: 4
  socket_dir: $DIR
  security_poll_suffix: ""
  threads: 1
logging:
  opentelemetry_trace_conditions: [{acls: ["0.0.0.0/0"]}]
  protobuf_servers: [{servers: ["%s"], logQueries: false}]
`, upstream, exportAddr)
}

// ask makes a lookup with EDNS, and an option where one is given, and returns the answer.
func (r *rig) ask(name, network string, option ...byte) *dns.Msg {
	r.t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	if len(option) > 0 {
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: option}}
	}
	return r.exchange(lab.Query{Name: name, Network: network, Message: m})
}

// askPlain makes one without EDNS.
func (r *rig) askPlain(name string) *dns.Msg {
	r.t.Helper()
	return r.exchange(lab.Query{Name: name})
}

// eachWay asks for names below a zone over UDP and TCP, and without EDNS, and checks what came
// of each: a client gets no option that it did not send.
func eachWay(t *testing.T, r *rig, zone string, check func(r *rig, name string)) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			name := network + "." + zone + ".test."
			checkExtended(t, r.ask(name, network))
			check(r.of(t), name)
		})
	}
	t.Run("without EDNS", func(t *testing.T) {
		name := "plain." + zone + ".test."
		if answer := r.askPlain(name); answer.IsEdns0() != nil {
			t.Errorf("the client got\n%s", answer)
		}
		check(r.of(t), name)
	})
}

func (r *rig) exchange(q lab.Query) *dns.Msg {
	r.t.Helper()
	q.Server = r.server
	res, err := r.Client(client).Exchange(r.t.Context(), q)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", q.Name, err, r.Outputs())
	}
	if res.Rcode() != dns.RcodeSuccess || len(res.Answer.Answer) != 1 {
		r.t.Errorf("%s: the client got\n%s", q.Name, res.Answer)
	}
	return res.Answer
}

// recorded are CoreDNS's records of a name so far.
func (r *rig) recorded(name string) []*trace.Query {
	r.t.Helper()
	f, err := os.Open(r.records())
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	var all []*trace.Query
	for records := trace.NewReader(f); ; {
		record, _, err := records.Read()
		if err != nil {
			return all // its end, or a line that is not whole yet
		}
		if q, ok := record.(*trace.Query); ok && q.QName == name {
			all = append(all, q)
		}
	}
}

// record waits for the one record of a name.
func (r *rig) record(name string) *trace.Query {
	r.t.Helper()
	var all []*trace.Query
	r.wait(name+" in CoreDNS's records", func() bool {
		all = r.recorded(name)
		return len(all) > 0
	})
	return all[len(all)-1]
}

// wait waits until something is so.
func (r *rig) wait(what string, so func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("no %s after %v\n%s", what, patience, r.Outputs())
		}
	}
}
