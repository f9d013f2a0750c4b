package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/trace"
)

// corpora say of each fuzz target that reads what others send how a hostile message
// becomes its arguments.
var corpora = map[string]func(message []byte) []any{
	queryCorpus: func(m []byte) []any { return []any{m} },
	"tracer/exchange/testdata/fuzz/FuzzMessage": func(m []byte) []any { return []any{m} },
	"tracer/capture/testdata/hostile":           func(m []byte) []any { return []any{m} }, // for its tests, too
	// A response as first and as later fragment, dropped, and quoted by ICMP.
	"tracer/exchange/testdata/fuzz/FuzzPackets": func(m []byte) []any { return []any{response(m), uint8(0xff), uint16(len(m)), uint32(1)} },
	// Twice on one connection, and a sequence number that overflows on the way.
	"tracer/exchange/testdata/fuzz/FuzzStream": func(m []byte) []any {
		return []any{bytes.Repeat(framed(m), 2), uint8(len(m)), uint32(1<<32 - 7)}
	},
}

// Where queries go, and the data of their TRACEPARENT options.
const (
	queryCorpus  = "plugin/testdata/fuzz/FuzzReceive"
	optionCorpus = "trace/testdata/fuzz/FuzzParseTraceparent"
)

// corpusFile is a file as testing.F reads it.
func corpusFile(arguments ...any) []byte {
	var b strings.Builder
	b.WriteString("go test fuzz v1\n")
	for _, a := range arguments {
		switch v := a.(type) {
		case []byte:
			fmt.Fprintf(&b, "[]byte(%q)\n", v)
		case uint8:
			fmt.Fprintf(&b, "byte(%q)\n", v)
		default:
			fmt.Fprintf(&b, "%T(%d)\n", v, v)
		}
	}
	return []byte(b.String())
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// What the attacker of these tests sends is where every fuzz target of a parser
// begins, and what every run of the tests gives it: DNSTRACE_UPDATE=1 writes the files.
func TestHostileMessagesSeedTheFuzzTargets(t *testing.T) {
	want := map[string][]byte{}
	add := func(folder, name string, arguments ...any) {
		file := "hostile-" + notInNames.ReplaceAllString(strings.ToLower(name), "-")
		want[filepath.Join("..", folder, file)] = corpusFile(arguments...)
	}
	for folder, arguments := range corpora {
		for name, m := range hostileMessages {
			add(folder, name, arguments(m)...)
		}
	}
	for name, options := range forgedOptions(trace.TraceID{1}, trace.SpanID{2}) {
		add(queryCorpus, name, packed(t, withOptions(name, options)))
		add(optionCorpus, name, options[0])
	}
	for _, folder := range append(slices.Collect(maps.Keys(corpora)), optionCorpus) {
		have, err := filepath.Glob(filepath.Join("..", folder, "hostile-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range have {
			if want[path] == nil {
				t.Errorf("%s: no test sends this any more: remove it", path)
			}
		}
	}
	for path, content := range want {
		if os.Getenv("DNSTRACE_UPDATE") != "" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, content) {
			t.Errorf("%s is not what the attacker sends (DNSTRACE_UPDATE=1 writes it): %v", path, err)
		}
	}
}

// forgedOptions are the data of TRACEPARENT options that name another's trace, by the
// name that is asked for.
func forgedOptions(id trace.TraceID, span trace.SpanID) map[string][][]byte {
	context := append(append(append([]byte{0, 0}, id[:]...), span[:]...), 1)
	return map[string][][]byte{
		"whole.test.":  {context},
		"nospan.test.": {context[:18]},
		"noflags.test": {context[:26]},
		"short.test.":  {context[:5]},
		"empty.test.":  {{}},
		"two.test.":    {context, context},
		"long.test.":   {bytes.Repeat(context, 15)},
		"version.test": {append([]byte{7}, context[1:]...)},
	}
}

// withOptions asks for a name, with TRACEPARENT options.
func withOptions(name string, options [][]byte) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	m.Id = 1
	m.SetEdns0(1232, false)
	for _, o := range options {
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: trace.DefaultOptionCode, Data: o})
	}
	return m
}
