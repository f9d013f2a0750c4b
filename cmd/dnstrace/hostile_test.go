package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/text/unicode/bidi"

	"github.com/dnstrace/dnstrace/trace"
)

// Texts that others choose: names, process names (comm), pods and their labels,
// namespaces, EDE and error texts of servers, the reasons of drops.
var hostileTexts = []string{
	"\x1b]0;owned\a\x1b[2J\x1b[31m",
	"a\r\ndnstrace: FORGED\n{\"v\":1,\"record\":\"trace\"}\n",
	"\x00\x7f\u009b31m\u202eright\u200bto left\u0301",
	"\xff\xfe\xc3(",
	"long " + strings.Repeat("long.", 3000),
	`"},{"record":"query`,
}

// withTexts sets every text of a record, and gives every list an element.
func withTexts(v reflect.Value, text string, depth int) {
	switch v.Interface().(type) {
	case time.Time, trace.Path, netip.Addr, netip.AddrPort:
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		if depth > 0 {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			withTexts(v.Elem(), text, depth-1)
		}
	case reflect.Slice:
		if depth > 1 { // whose elements may be pointers
			if v.Len() == 0 {
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			}
			for i := range v.Len() {
				withTexts(v.Index(i), text, depth-1)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				withTexts(v.Field(i), text, depth)
			}
		}
	}
}

// hostileFile writes a trace of which every text is the given one, and one of which only
// those are that leave it to be a lookup with packets.
func hostileFile(t *testing.T, text string) string {
	t.Helper()
	ex, q := recorded(1, "api.example.com.")
	whole := &trace.Trace{Header: ex.Header, Exchange: ex, Query: q}
	withTexts(reflect.ValueOf(whole).Elem(), text, 5)
	whole.Record, whole.V = trace.KindTrace, trace.Version
	part, q := recorded(2, "www.example.com.")
	end := trace.Endpoint{}
	withTexts(reflect.ValueOf(&end).Elem(), text, 1)
	part.Client, part.Server = &end, &end
	part.Drops = []trace.Drop{{Message: trace.MessageQuery, Where: text, Reason: text, Description: text, BPF: text, Node: text, NetNSName: text, IfName: text}}
	part.Path = trace.PathOf(trace.Sighting{Message: "query", Direction: "tx", Device: trace.Device{Node: text, NetNSName: text, IfName: text, NetNS: 7},
		Src: netip.MustParseAddrPort("10.244.0.4:50202"), Dst: netip.MustParseAddrPort("10.96.0.10:53")})
	part.Milestones = trace.Milestones{}
	lookup := &trace.Trace{Header: part.Header, QName: "www.example.com.", QType: "A", Outcome: trace.OutcomeUnanswered, Client: &end, Server: &end, Exchange: part, Query: q,
		Diagnosis: []trace.Finding{{Code: text, Summary: text, Evidence: []string{text}, Advice: text}}, Gaps: []string{text}}
	lookup.Record = trace.KindTrace
	path := filepath.Join(t.TempDir(), "records.jsonl")
	var b []byte
	for _, r := range []trace.Record{whole, lookup} {
		line := r.AppendJSON(nil)
		if !json.Valid(line) || bytes.ContainsAny(line, "\n\r\x1b") {
			t.Errorf("%s record: no single line of JSON: %.200q", r.Kind(), line)
		}
		b = append(append(b, line...), '\n')
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever text others choose, no command lets it move a cursor, change a title, or
// begin a line; with -o json each record stays one line.
func TestHostileTexts(t *testing.T) {
	for _, text := range hostileTexts {
		path := hostileFile(t, text)
		for _, args := range [][]string{
			{"watch", "--upstream"}, {"watch", "--columns", "date,client,source,name,process,pod,namespace,container,netns,server,upstream,diagnosis"}, {"watch", "-o", "json"},
			{"watch", "-f", "duration_seconds > qname"},
			{"explain", "--all", "--upstream"}, {"explain", "www.example.com"}, {"explain", text},
			{"top", "--once"}, {"top", "--once", "-o", "rows"}, {"top", "--once", "-o", "json"},
			{"watch", "--api", text}, {"run", "--output", "file:/absent/" + text}, {"run", "--output", text}, {"run", "--netns", text}, {text}, {"watch", "--" + text},
		} {
			if args[0] == "explain" || args[0] == "top" || args[0] == "watch" && args[1] != "--api" {
				args = append(args, "--from", path)
			}
			_, stdout, stderr := call(t, "", args...)
			for name, out := range map[string]string{"stdout": stdout, "stderr": stderr} {
				for line := range strings.Lines(out) {
					line = strings.TrimSuffix(line, "\n")
					if name == "stderr" && strings.HasPrefix(line, "dnstrace: FORGED") {
						t.Errorf("%.60q: a forged line: %.100q", args, line)
					}
					if name == "stdout" && (slices.Contains(args, "json") || slices.Contains(args, "rows")) {
						if !json.Valid([]byte(line)) || line == `{"v":1,"record":"trace"}` || args[2] == "json" && strings.ContainsFunc(line, unicode.IsControl) {
							t.Errorf("%.60q: %.100q", args, line)
						}
						continue
					}
					if strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) || r == '\u202e' || r == '\u200b' }) {
						t.Errorf("%.60q on %s: %.200q", args, name, line)
					}
				}
			}
		}
	}
}

// The writer of a file can leave in a record what the encoder would escape: no command prints
// it, not even with -o json.
func TestHostileLines(t *testing.T) {
	ex, _ := recorded(1, "api.example.com.")
	ex.Client = &trace.Endpoint{Pod: "HERE", Process: "HERE", Node: "HERE"}
	whole := &trace.Trace{Header: ex.Header, QName: "api.example.com.", QType: "A", Outcome: trace.OutcomeAnswered, RCode: "NOERROR", Client: ex.Client, Exchange: ex}
	whole.Record = trace.KindTrace
	for _, text := range []string{"\u009b31m", "\x7f", "\u202e\u2066\u200f\u061c", "\u2028\u0085", "\U000e0041\ufeff\u00ad", "\u200b", "\u05d0 7", "\u0628\u0661", "\U0001e900"} {
		line := strings.ReplaceAll(string(whole.AppendJSON(nil)), "HERE", "pod"+text)
		path := filepath.Join(t.TempDir(), "records.jsonl")
		if err := os.WriteFile(path, []byte(strings.Replace(line, "{", "{\r", 1)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"watch"}, {"watch", "-o", "json"}, {"explain"}, {"explain", "-o", "json"}, {"explain", "pod*"}, {"top", "--once"}, {"top", "--once", "-o", "rows"}, {"top", "--once", "-o", "json"},
		} {
			status, stdout, stderr := call(t, "", append(args, "--from", path)...)
			if status != 0 || stdout == "" || strings.ContainsFunc(stdout+stderr, func(r rune) bool {
				return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || fromTheRight(r))
			}) {
				t.Errorf("%+q %v: %d %+q %+q", text, args, status, stdout, stderr)
			}
			if slices.Contains(args, "-o") && args[len(args)-1] == "json" && !json.Valid([]byte(strings.TrimSpace(stdout))) {
				t.Errorf("%+q %v: %s", text, args, stdout)
			}
		}
	}
}

// fromTheRight tells of a letter or a number that terminals write from right to left, and with it
// the numbers and signs around it (UAX #9).
func fromTheRight(r rune) bool {
	p, _ := bidi.LookupRune(r)
	return p.Class() == bidi.R || p.Class() == bidi.AL || p.Class() == bidi.AN
}

// shapes returns a record with each of its parts, in turn, set to null, emptied, or, where it is a
// list, followed by null and by an empty object.
func shapes(t *testing.T, line string) []string {
	t.Helper()
	var whole any
	if err := json.Unmarshal([]byte(line), &whole); err != nil {
		t.Fatal(err)
	}
	var all []string
	try := func(set func(any), was any, instead ...any) {
		for _, v := range instead {
			set(v)
			b, err := json.Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
		set(was)
	}
	var walk func(v any, set func(any))
	walk = func(v any, set func(any)) {
		switch v := v.(type) {
		case map[string]any:
			try(set, v, nil, map[string]any{})
			for k, part := range v {
				walk(part, func(instead any) { v[k] = instead })
			}
		case []any:
			try(set, v, nil, append(slices.Clone(v), nil), append(slices.Clone(v), map[string]any{}))
			for i, part := range v {
				walk(part, func(instead any) { v[i] = instead })
			}
		case float64:
			try(set, v, nil, -1.0, 1e300)
		default:
			try(set, v, nil)
		}
	}
	walk(whole, func(any) {})
	return all
}

// Records lack any part that real ones have, hold nothing where something belongs, or are nested
// without end: each is shown or refused, no command ends over it, and what else is in the file is
// shown.
func TestHostileShapes(t *testing.T) {
	const cases = "../../tracer/diagnose/testdata/"
	nested := `{"attempt":{"attempt":1,"address":"192.0.2.1:53","start_seconds":0,"duration_seconds":0,"outcome":"ok"},"upstreams":[`
	for _, name := range []string{"all-upstreams-silent", "path-mtu"} {
		content, err := os.ReadFile(cases + name + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		_, traces, _ := call(t, "", "watch", "-o", "json", "--upstream", "--from", cases+name+".jsonl")
		file := ""
		for line := range strings.Lines(string(content) + traces) {
			file += strings.Join(shapes(t, line), "\n") + "\n"
			for _, depth := range []int{2, 3000} {
				file += strings.Replace(line, `"upstreams":[`, `"upstreams":[`+strings.Repeat(nested, depth)+strings.Repeat("]},", depth), 1)
			}
		}
		whole, _ := recorded(1, "api.example.com.")
		path := filepath.Join(t.TempDir(), "records.jsonl")
		if err := os.WriteFile(path, append([]byte(file), append(whole.AppendJSON(nil), '\n')...), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"watch", "--upstream"}, {"explain", "--all", "--upstream"}, {"explain", "--all", "--pcap", "-"}, {"top", "--once"}} {
			status, stdout, stderr := call(t, "", append(args, "--from", path)...)
			if status != 0 || args[0] != "top" && !slices.Contains(args, "--pcap") && !strings.Contains(stdout, "api.example.com") {
				t.Errorf("%s, %v: status %d, %d bytes: %s", name, args, status, len(stdout), stderr[max(0, len(stderr)-300):])
			}
		}
	}
}

// A socket name without a file is served by the first process that takes it: no command asks
// there.
func TestSocketWithoutAFile(t *testing.T) {
	for _, args := range [][]string{{"watch"}, {"explain", "www.example.com"}, {"top", "--once"}} {
		if status, _, stderr := call(t, "", append(args, "--api", "@dnstrace")...); status == 0 || !strings.Contains(stderr, "names no file") {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
}

// A link, a pipe, a device, or another user's file is where explain is to write
// packets, or may replace it there: it refuses, at once, says what to do, and leaves the
// target of the link as it was.
func TestHostilePcapPath(t *testing.T) {
	lookups := hostileFile(t, "text")
	for name, tc := range map[string]struct {
		attack func(dir, path string) error
		want   string
	}{
		"a link": {func(dir, path string) error {
			return errors.Join(os.WriteFile(dir+"/victim", []byte("kept"), 0o600), os.Symlink(dir+"/victim", path))
		}, "it is a symbolic link"},
		"a pipe":   {func(_, path string) error { return syscall.Mkfifo(path, 0o666) }, "it is a named pipe"},
		"a device": {func(_, path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3) }, "it is a device"},
		"another's file": {func(_, path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 65534, 65534))
		}, "it belongs to user 65534"},
		"a folder of all": {func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "chmod go-w"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			path := filepath.Join(dir, "packets.pcapng")
			if err := errors.Join(os.Mkdir(dir, 0o755), tc.attack(dir, path)); err != nil {
				t.Fatal(err)
			}
			status, _, stderr := call(t, "", "explain", "www.example.com", "--from", lookups, "--pcap", path)
			if status == 0 || !strings.Contains(stderr, tc.want) || !strings.Contains(stderr, "--pcap - >") {
				t.Errorf("status %d: %s", status, stderr)
			}
			if kept, err := os.ReadFile(dir + "/victim"); err == nil && string(kept) != "kept" {
				t.Errorf("the victim has %d bytes", len(kept))
			}
		})
	}
}

// The comments and the interfaces of a pcapng file, which Wireshark shows and tshark
// prints, are single lines of a bounded length, and the file stays one.
func TestHostilePcapComments(t *testing.T) {
	for _, text := range hostileTexts {
		status, stdout, stderr := call(t, "", "explain", "www.example.com", "--from", hostileFile(t, text), "--pcap", "-")
		if status != 0 {
			t.Fatalf("%.60q: %s", text, stderr)
		}
		r, err := pcapgo.NewNgReader(strings.NewReader(stdout), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		packets := 0
		for {
			data, _, options, err := r.ReadPacketDataWithOptions()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%.60q: %v", text, err)
			}
			packets++
			if len(data) == 0 || len(options.Comments) != 1 {
				t.Errorf("%.60q: %d bytes, %d comments", text, len(data), len(options.Comments))
			}
			for _, c := range options.Comments {
				if strings.ContainsFunc(c, unicode.IsControl) || strings.ContainsAny(c, "\u202e\u200b") || len(c) > 8<<10 {
					t.Errorf("%.60q: comment of %d bytes %.200q", text, len(c), c)
				}
			}
		}
		if packets < 2 {
			t.Errorf("%.60q: %d packets", text, packets)
		}
		for i := range r.NInterfaces() {
			itf, err := r.Interface(i)
			if err != nil || strings.ContainsFunc(itf.Name, unicode.IsControl) || len(itf.Name) > 1024 {
				t.Errorf("%.60q: interface %.100q, %v", text, itf.Name, err)
			}
		}
	}
}

// Wherever a URL with a password stands on the command line, right or wrong, no message
// repeats the password: messages go into logs.
func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, url := range []string{"http://user:secret@host:4318", "user:secret@host", "https://secret@host/x", "http://user:sec%zzret@host", "http://user:a/secret@host", "http://user:my secret@host:4318", `http://user:my"secret@host`, "http://user:it's secret@host"} {
		for _, args := range [][]string{
			{"run", "--output", url}, {"run", "--output", "otlp:" + url}, {"run", "--output", "otlps:" + url}, {"run", "--output", "file:absent/" + url},
			{"run", "--netns", url}, {"run", "--filter", url},
			{"run", "--listen-owner", url}, {"run", "--record", url}, {"run", "--history-memory", url}, {"run", "--timeout", url}, {"run", "--metrics-labels", url}, {"run", url},
			{"watch", "--from", url}, {"watch", "--api", url}, {"watch", url}, {"watch", "-f", url}, {"watch", "--columns", url},
			{"watch", "--since", url}, {"watch", "-o", url}, {"explain", "--api", url, "name"}, {"explain", "--from", url}, {"explain", "--pcap", url, "--from", "absent"},
			{"top", "--" + url}, {"check", url}, {url},
		} {
			if _, stdout, stderr := call(t, "", args...); strings.Contains(stdout+stderr, "secret") || strings.Contains(stdout+stderr, "ret@") || stderr == "" {
				t.Errorf("%q: %s%s", args, stdout, stderr)
			}
		}
	}
}
