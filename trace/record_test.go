package trace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
)

func sampleRecords() []Record {
	at := time.Date(2026, 11, 21, 3, 0, 0, 123456789, time.UTC)
	flow := NewFlow(TransportUDP, netip.MustParseAddrPort("10.244.0.4:50202"), 0xc1a1, 1, 1, []byte("\x07example\x03com\x00"))
	head := Header{V: Version, Time: at, TraceID: NewTraceID(at, flow), Flow: flow}
	size, parent, port, rate := 56, 0, uint16(53), 0.01
	count, ttl := 2, uint32(5)
	question := DNS{
		ClientIP: netip.MustParseAddr("10.244.0.4"), ClientPort: 50202, QName: "example.com.", QType: "A", QClass: "IN",
		Protocol: "udp", ID: 0xc1a1, RequestSize: 29, BufSize: 512, RCode: "NOERROR", ResponseSize: &size,
		Duration: SecondsPtr(21960059),
	}
	client := NewSpanID(head.TraceID, SpanID{}, RoleClient, 0)
	attempt := Attempt{Attempt: 1, Address: "192.168.49.1:53", Start: 200000, Duration: SecondsPtr(2 * time.Second),
		Outcome: OutcomeTimeout, Error: "read udp: i/o timeout", Plugin: "forward"}
	chased := Attempt{Attempt: 2, Address: "192.168.49.1:53", Start: 300000, Outcome: OutcomeFailed, Plugin: "forward", QName: "target.example.", QType: "AAAA"}
	query := &Query{
		Header: head, DNS: question, SpanID: NewSpanID(head.TraceID, client, RoleServer, 0), ParentSpanID: &client,
		ServerIP: netip.MustParseAddr("10.244.0.2"), ServerPort: 53, Zone: ".", Cache: CacheMiss, AnsweredBy: "forward",
		Outcome: OutcomeAnswered,
		Hops: []Hop{{Plugin: "cache", Start: 1000, Duration: SecondsPtr(21000000)},
			{Plugin: "forward", Parent: &parent, Start: 2000}},
		Upstreams: []Attempt{attempt}, Sample: &rate, Unverified: true,
	}
	query.Record = KindQuery
	refresh := &Refresh{Header: head, DNS: question, Cause: "prefetch", Hops: []Hop{}, Upstreams: []Attempt{attempt, chased}, Sample: &rate}
	refresh.Record = KindRefresh
	exchange := &Exchange{
		Header: head, DNS: question, ServerIP: netip.MustParseAddr("10.96.0.10"), ServerPort: 53,
		NAT: &NAT{ServerIP: netip.MustParseAddr("10.244.0.2"), ServerPort: &port, Source: NATConntrack, Endpoint: &ServiceEndpoint{
			State: EndpointRemoved, Pod: "kube-system/coredns-1", Since: SecondsPtr(-time.Minute),
		}}, Outcome: OutcomeDropped,
		Transmissions: 1,
		Path: PathOf(
			Sighting{Device: Device{"node-1", 4026532572, "pod-a", 2, "eth0"}, Message: MessageQuery, Direction: DirectionTX,
				Src: netip.MustParseAddrPort("10.244.0.4:50202"), Dst: netip.MustParseAddrPort("10.96.0.10:53")},
			Sighting{Device: Device{"node-1", 4026532220, "", 4, "flannel.1"}, Offset: 900, Message: MessageQuery, Direction: DirectionTX, VLAN: 7,
				Src: netip.MustParseAddrPort("10.244.0.4:50202"), Dst: netip.MustParseAddrPort("10.244.1.2:53"),
				Tunnel: &Tunnel{Kind: "vxlan", Src: netip.MustParseAddrPort("192.168.49.2:41000"), Dst: netip.MustParseAddrPort("192.168.49.3:8472"), VNI: 1}},
			Sighting{Device: Device{"node-2", 4026532220, "", 0, ""}, Offset: 950, Message: MessageQuery, Direction: DirectionDelivered,
				Src: netip.MustParseAddrPort("10.244.0.4:50202"), Dst: netip.MustParseAddrPort("10.244.1.2:53")},
		),
		Milestones: Milestones{Query: Progress{Left: MilestoneAt(0), Arrived: MilestoneAt(2)}, Response: Progress{Arrived: NotObservable}},
		Drops: []Drop{{Where: "nft_do_chain", Reason: "NETFILTER_DROP", Description: "netfilter hook FORWARD", Message: MessageQuery, Node: "node-1", NetNS: 4026532220,
			NetNSName: "n", IfName: "cni0", Offset: 17000, BPF: "tc ingress", Fragment: true, ConntrackCount: 262143, ConntrackMax: 262144}},
		Rejected: []Rejection{{Why: RejectedPort, Src: netip.MustParseAddrPort("10.244.1.2:5353"), RCode: "NOERROR", Size: 46, Offset: 18000}},
		Reset:    &Reset{Src: netip.MustParseAddrPort("10.244.1.2:53"), Offset: 19000}, ListenFull: true, ResentSegments: 4, Replaces: true, Truncated: true, Respelled: true, Outstanding: 3, Sample: &rate,
		Traceparent: "00-6b01090041156cb99fd7e9f79b794954-0123456789abcdef-01", Server: &Endpoint{Pod: "p", Namespace: "n"}, Client: &Endpoint{Process: "named", PID: 42, TID: 45, Thread: "isc-net-0001", Cgroup: "/user.slice"}, LostEvents: 3, PathOmitted: 9, SampledInKernel: true, Node: "node-1",
		Flags: []string{"aa", "rd"}, AnswerCount: &count, MinTTL: &ttl,
		Answers:       []Answer{{Type: "CNAME", Value: "a\\046b.example.com.", TTL: 30}, {Type: "A", Value: "192.0.2.1", TTL: 5}},
		ExtendedError: &ExtendedError{Code: 22, Name: "No Reachable Authority", Text: "at \"delegation\""},
		ICMP:          &ICMP{Type: 3, Code: 4, From: netip.MustParseAddr("192.168.49.9"), Message: MessageQuery, MTU: 1400, Offset: 21000, Node: "node-1", NetNS: 4026532220, NetNSName: "n", IfName: "cni0", Direction: DirectionTX, BPF: true},
		Fragments:     &Fragments{Message: MessageResponse, Seen: 2, SeenBytes: 2900, Size: &size},
	}
	exchange.Record = KindExchange
	unseen := DNS{QName: "a\\\"b.\\195\\164.", QType: "TYPE65280", QClass: "IN", Protocol: "tcp", BufSize: 65535}
	bare := &Query{Header: head, DNS: unseen, Cache: CacheNone, Outcome: OutcomeNoResponse, Hops: []Hop{}, Upstreams: []Attempt{}}
	bare.Record = KindQuery
	tr := &Trace{
		Header: head, QName: "example.com.", QType: "A", RCode: "NOERROR", Duration: SecondsPtr(22 * time.Millisecond),
		Outcome: OutcomeAnswered, Client: &Endpoint{Pod: "mypod", Namespace: "demo", Workload: "Deployment/mypod"},
		Server: &Endpoint{Service: "kube-system/kube-dns", ServiceState: ServiceNoEndpoints}, Exchange: exchange, Query: query,
		Upstreams:  []Upstream{{Attempt: &attempt, Join: JoinNone, Upstreams: []Upstream{{Exchange: exchange, Earlier: []*Exchange{exchange}, Join: JoinInferred, Upstreams: []Upstream{}}}}},
		Resolution: "6b01090041156cb99fd7e9f79b794954", ResolutionJoin: JoinInferred, ClockOffset: SecondsPtr(-3 * time.Millisecond),
		Gaps:      []string{"the way back was not observed"},
		Diagnosis: []Finding{{Code: "upstream-timeout", Summary: "s", Evidence: []string{"e"}, Advice: "a", InDoubt: true}},
		Replaces:  true, Role: RoleUpstream,
	}
	tr.Record = KindTrace
	return []Record{query, refresh, exchange, bare, tr}
}

func TestRecordsRoundTrip(t *testing.T) {
	var all bytes.Buffer
	for _, want := range sampleRecords() {
		line := want.AppendJSON(nil)
		all.Write(append(line, '\n'))
		got, err := Decode(line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", want.Kind(), err, line)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", want.Kind(), got, want)
		}
		if again := got.AppendJSON(nil); !bytes.Equal(again, line) {
			t.Errorf("%s: not stable:\n%s\n%s", want.Kind(), line, again)
		}
	}
	golden(t, "testdata/records.jsonl", all.Bytes())
}

// golden compares with a file that people read; DNSTRACE_UPDATE=1 rewrites it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if os.Getenv("DNSTRACE_UPDATE") != "" {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// Every field of the Go types is encoded: a field that is only decoded would be
// lost on the way.
func TestEveryFieldIsEncoded(t *testing.T) {
	for _, r := range sampleRecords() {
		var encoded map[string]any
		if err := json.Unmarshal(r.AppendJSON(nil), &encoded); err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var reflected map[string]any
		if err := json.Unmarshal(plain, &reflected); err != nil {
			t.Fatal(err)
		}
		for name := range reflected {
			if _, ok := encoded[name]; !ok {
				t.Errorf("%s: %s is not encoded", r.Kind(), name)
			}
		}
		if len(encoded) != len(reflected) {
			t.Errorf("%s: %d fields encoded, the type has %d", r.Kind(), len(encoded), len(reflected))
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	good := string(sampleRecords()[0].AppendJSON(nil))
	swap := func(old, repl string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("the sample has no %s", old)
		}
		return strings.Replace(good, old, repl, 1)
	}
	for _, tc := range []struct{ name, line, want string }{
		{"no JSON", "[INFO] plugin/reload", "expected a JSON object"},
		{"other JSON", `{"level":"info"}`, "not a dnstrace record"},
		{"version", swap(`"v":1`, `"v":2`), "field v: expected 1, got 2"},
		{"record", swap(`"record":"query"`, `"record":"span"`), `field record: expected query, refresh, exchange or trace, got "span"`},
		{"type", swap(`"client_port":50202`, `"client_port":"x"`), "field client_port: "},
		{"range", swap(`"client_port":50202`, `"client_port":70000`), "field client_port: "},
		{"nested", swap(`"address":"192.168.49.1:53"`, `"address":5`), "field upstreams[0].address: "},
		{"hex", swap(`"flow":"4`, `"flow":"x`), "field flow: expected hexadecimal digits"},
		{"short id", swap(`"flow":"41`, `"flow":"`), "field flow: expected 24 hexadecimal digits"},
		{"seconds", swap(`"start_seconds":0.000001`, `"start_seconds":true`), "field hops[0].start_seconds: "},
		{"sample", swap(`"sample":0.01`, `"sample":"1%"`), "field sample: "},
		{"duplicate", swap(`"zone":".",`, `"zone":".","zone":"x",`), "field zone: "},
		{"time missing", swap(`"time":"2026-11-21T03:00:00.123456789Z",`, ""), "field time: missing"},
		{"truncated", good[:len(good)-5], "not valid JSON"},
	} {
		_, err := Decode([]byte(tc.line))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// A terminal that a record is shown on obeys none of its texts, whatever a process or a
// pod is called: what JSON itself lets stand is escaped, too.
func TestControlsAreEscaped(t *testing.T) {
	const name = "a\x1b[\x7f\u0080\u009b31m\u009f\u00a0é\xc2\xff\xc2"
	ex := &Exchange{Header: Header{Time: time.Unix(1, 0), TraceID: TraceID{1}, Flow: Flow{1}}, Client: &Endpoint{Process: name}}
	line := ex.AppendJSON(nil)
	if bytes.ContainsFunc(line, unicode.IsControl) {
		t.Errorf("%q", line)
	}
	r, err := Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.(*Exchange).Client.Process, strings.ToValidUTF8(name[:len(name)-3], "")+"\ufffd\ufffd\ufffd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A record written by hand can lack parts that the tracer never leaves out, and be nested
// without end: it is rejected.
func TestDecodeParts(t *testing.T) {
	const (
		head    = `"v":1,"record":"trace","time":"2026-11-21T03:00:02Z","trace_id":"01000000000000000000000000000000","flow":"010000000000000000000000"`
		attempt = `"attempt":{"attempt":1,"address":"192.0.2.1:53","start_seconds":0,"duration_seconds":0,"outcome":"ok"}`
		whole   = `{"v":1,"record":"exchange","time":"2026-11-21T03:00:02Z","trace_id":"01000000000000000000000000000000","flow":"010000000000000000000000"}`
	)
	nested := func(n int) string {
		return strings.Repeat(`"upstreams":[{`+attempt+`,`, n) + `"join":"none"` + strings.Repeat("}]", n)
	}
	for parts, want := range map[string]string{
		`"upstreams":[{` + attempt + `,"upstreams":[{` + attempt + `,"earlier":[null]}]}]`: "field upstreams.earlier: expected exchanges",
		`"upstreams":[{` + attempt + `,"upstreams":[{}]}]`:                                 "expected an attempt or an exchange, got neither",
		`"exchange":{}`: "of field exchange: field time: missing",
		`"query":{"time":"2026-11-21T03:00:02Z"}`:    "of field query: field trace_id: missing",
		`"upstreams":[{"exchange":{}}]`:              "of field upstreams.exchange: field time: missing",
		`"upstreams":[{` + attempt + `,"query":{}}]`: "of field upstreams.query: field time: missing",
		nested(33):            "nested more than 32 times",
		nested(32):            "",
		`"exchange":` + whole: "",
		`"upstreams":[` + strings.Repeat(`{`+attempt+`},`, 2048) + `{` + attempt + `}]`:                             "field upstreams: more than 2048",
		`"upstreams":[` + strings.Repeat(`{`+attempt+`,"upstreams":[{`+attempt+`}]},`, 1024) + `{` + attempt + `}]`: "field upstreams: more than 2048",
		`"upstreams":[` + strings.Repeat(`{`+attempt+`},`, 2047) + `{` + attempt + `}]`:                             "",
	} {
		_, err := Decode([]byte("{" + head + "," + parts + "}"))
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%.200s: %v, want %q", parts, err, want)
		}
	}
}

// The attempts of a server's record have an end, as it is written and in any other way.
func TestDecodeAttempts(t *testing.T) {
	q := new(Query)
	for _, r := range sampleRecords() {
		if r, ok := r.(*Query); ok {
			q = r
		}
	}
	for n, want := range map[int]bool{maxUpstreams: true, maxUpstreams + 1: false, 70_000: false} {
		q.Upstreams = make([]Attempt, n)
		line := q.AppendJSON(nil)
		for _, line := range [][]byte{line, append([]byte(`{ `), line[1:]...)} {
			if _, err := Decode(line); (err == nil) != want {
				t.Errorf("%d attempts: %v", n, err)
			}
		}
	}
}

// A record of a newer version has fields that this one does not know.
func TestDecodePassesOverUnknownFields(t *testing.T) {
	for _, r := range sampleRecords() {
		line := r.AppendJSON(nil)
		newer := append([]byte(`{"x":{"y":[1,{}]},`), line[1:]...)
		got, err := Decode(newer)
		if err != nil {
			t.Fatalf("%s: %v", r.Kind(), err)
		}
		if again := got.AppendJSON(nil); !bytes.Equal(again, line) {
			t.Errorf("%s: read and written again: %s", r.Kind(), again)
		}
	}
}

func TestReaderNamesLineAndGoesOn(t *testing.T) {
	good := string(sampleRecords()[0].AppendJSON(nil))
	in := good + "\n\nnonsense\n" + strings.Repeat("x", maxLine+1) + "\n" + good
	r := NewReader(strings.NewReader(in))
	var lines []string
	records := 0
	for {
		_, _, err := r.Read()
		var bad *LineError
		switch {
		case errors.Is(err, io.EOF):
			if got := strings.Join(lines, "; "); records != 2 || !strings.HasPrefix(got, "line 3: not a dnstrace record") || !strings.Contains(got, "line 4: longer than") {
				t.Errorf("%d records, errors: %s", records, got)
			}
			return
		case errors.As(err, &bad):
			lines = append(lines, err.Error())
		case err != nil:
			t.Fatal(err)
		default:
			records++
		}
	}
}

func TestTimeIsRFC3339(t *testing.T) {
	zone := time.FixedZone("", 3600)
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), time.Date(2026, 12, 31, 23, 59, 59, 999999999, zone),
		time.Date(2024, 2, 29, 0, 0, 0, 100000000, zone),
	} {
		if got, want := string(appendTime(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000000000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSecondsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	values := []Seconds{0, 1, -1, 1e9, 999999999, 1500000000, -2500000000}
	for range 1000 {
		values = append(values, Seconds(rng.Int64N(int64(24*time.Hour))))
	}
	for _, want := range values {
		var got Seconds
		text := want.appendJSON(nil)
		if err := got.UnmarshalJSON(text); err != nil || got != want {
			t.Errorf("%d: %s reads as %d, %v", want, text, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(r.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Decode(line)
		if err != nil {
			return
		}
		out := r.AppendJSON(nil)
		if _, err := Decode(out); err != nil {
			t.Fatalf("%s\nis accepted, but encodes as\n%s\nwhich is not: %v", line, out, err)
		}
	})
}

func BenchmarkAppendQuery(b *testing.B) {
	r := sampleRecords()[0]
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}

// As a plugin sends it: what the tracer adds to a record is not in there.
func BenchmarkDecodeQuery(b *testing.B) {
	q := *sampleRecords()[0].(*Query)
	q.Unverified = false
	line := q.AppendJSON(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
