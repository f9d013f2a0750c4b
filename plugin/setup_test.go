package dnstrace

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/coredns/caddy"
)

func TestParse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "records.jsonl")
	for _, tc := range []struct {
		input   string
		zones   string
		outputs []outputConfig
		buffer  int
	}{
		{"dnstrace", "server.block.", []outputConfig{{kind: "stdout"}}, 8192},
		{"dnstrace {\n}", "server.block.", []outputConfig{{kind: "stdout"}}, 8192},
		{"dnstrace example.org Example.NET.", "example.org. example.net.", []outputConfig{{kind: "stdout"}}, 8192},
		{"dnstrace 10.0.0.0/8", "10.in-addr.arpa.", []outputConfig{{kind: "stdout"}}, 8192},
		{"dnstrace . {\n output stderr\n buffer 16\n}", ".", []outputConfig{{kind: "stderr"}}, 16},
		{"dnstrace {\n output file " + file + "\n output unix /run/dnstrace/records.sock\n}", "server.block.",
			[]outputConfig{{"file", file}, {"unix", "/run/dnstrace/records.sock"}}, 8192},
	} {
		c := caddy.NewTestController("dns", tc.input)
		c.ServerBlockKeys = []string{"server.block.:53"}
		d, err := parse(c)
		if err != nil {
			t.Errorf("%s: %v", tc.input, err)
			continue
		}
		var outputs []outputConfig
		for _, o := range d.outputs {
			outputs = append(outputs, o.config)
			if o.limit != tc.buffer {
				t.Errorf("%s: buffer %d", tc.input, o.limit)
			}
		}
		if got := strings.Join(d.zones, " "); got != tc.zones || !reflect.DeepEqual(outputs, tc.outputs) {
			t.Errorf("%s: zones %s, outputs %v", tc.input, got, outputs)
		}
	}
}

func TestParseErrors(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink("/dev/null", link)); err != nil {
		t.Fatal(err)
	}
	const outputs = "expected stdout, stderr, file PATH or unix PATH"
	for _, tc := range []struct{ name, input, want string }{
		{"unknown property", "dnstrace {\n outputs stdout\n}", `:2 - Error during parsing: unknown property "outputs": expected output, stamp, accept, option-code, sample, slow or buffer`},
		{"twice", "dnstrace\ndnstrace", ":2 - Error during parsing: dnstrace is already in this server block: expected it once"},
		{"zone", "dnstrace exa..mple", `:1 - Error during parsing: "exa..mple" is no zone: expected a domain name, or a network`},
		{"long label", "dnstrace " + strings.Repeat("a", 64), "is no zone"},
		{"zone with port", "dnstrace example.org:53", `"example.org:53" is no zone: expected a domain name, or a network for its reverse zone, without a port`},
		{"no output", "dnstrace {\n output\n}", ":2 - Error during parsing: output: " + outputs},
		{"unknown output", "dnstrace {\n output syslog\n}", "output syslog: " + outputs},
		{"stdout path", "dnstrace {\n output stdout x\n}", "output stdout x: " + outputs},
		{"file without path", "dnstrace {\n output file\n}", "output file: " + outputs},
		{"two paths", "dnstrace {\n output unix a b\n}", "output unix a b: " + outputs},
		{"same output twice", "dnstrace {\n output stderr\n output stderr\n}", ":3 - Error during parsing: output stderr is already there: expected every output once"},
		{"unwritable file", "dnstrace {\n output file " + dir + "\n}", ":2 - Error during parsing: output file " + dir + ": expected a file that CoreDNS may create or append to: append to " + dir + ": it is a folder"},
		{"pipe", "dnstrace {\n output stderr\n output file " + pipe + "\n}", ":3 - Error during parsing: output file " + pipe + ": expected a file that CoreDNS may create or append to: append to " + pipe + ": it is a named pipe: expected a regular file"},
		{"link", "dnstrace {\n output file " + link + "\n}", ":2 - Error during parsing: output file " + link + ": expected a file that CoreDNS may create or append to: append to " + link + ": it is a symbolic link"},
		{"no directory", "dnstrace {\n output file " + dir + "/no/file\n}", "no such file or directory"},
		{"abstract socket", "dnstrace {\n output unix @records\n}", `output unix: "@records" names no file, and a socket without one is anybody's`},
		{"long unix path", "dnstrace {\n output unix /" + strings.Repeat("a", 107) + "\n}", "output unix: the path has 108 bytes: expected at most 107"},
		{"no buffer", "dnstrace {\n buffer\n}", "buffer: expected a whole number of records"},
		{"buffer text", "dnstrace {\n buffer many\n}", "buffer many: expected a whole number of records from 1 to 1048576"},
		{"buffer zero", "dnstrace {\n buffer 0\n}", "buffer 0: expected"},
		{"buffer negative", "dnstrace {\n buffer -1\n}", "buffer -1: expected"},
		{"buffer large", "dnstrace {\n buffer 1048577\n}", "buffer 1048577: expected"},
		{"buffer twice", "dnstrace {\n buffer 5\n buffer 6\n}", "buffer is already set: expected it once"},
	} {
		c := caddy.NewTestController("dns", tc.input)
		err := setup(c)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "plugin/dnstrace: Testfile:") {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// CoreDNS itself stops, with the name of the Corefile and the line.
func TestWrongCorefileStopsTheStart(t *testing.T) {
	_, err := caddy.Start(caddy.CaddyfileInput{
		Contents: []byte(".:0 {\n whoami\n dnstrace {\n  slower 5s\n }\n}"), Filepath: "Corefile", ServerTypeName: "dns",
	})
	const want = `plugin/dnstrace: Corefile:4 - Error during parsing: unknown property "slower": expected output, stamp, accept, option-code, sample, slow or buffer`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
