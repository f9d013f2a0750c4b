package main

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	oci "github.com/opencontainers/image-spec/specs-go/v1"
)

// built are the programs of binaries, which take a while to build.
var built = map[string]string{}

// binaries are small programs, as ARCHITECTURE=BINARY.
func binaries(t *testing.T) []string {
	t.Helper()
	var args []string
	for _, architecture := range []string{"amd64", "arm64"} {
		args = append(args, architecture+"="+program(t, architecture))
	}
	return args
}

// program builds a program that is linked with one module.
func program(t *testing.T, architecture string) string {
	t.Helper()
	if path := built[architecture]; path != "" {
		return path
	}
	dir, err := os.MkdirTemp(programs, architecture)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "dnstrace")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "../sbom/testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture)
	if message, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, message)
	}
	built[architecture] = path
	return path
}

// programs is the folder of all programs.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "images-"); err != nil {
		panic(err)
	}
	status := m.Run()
	if err := os.RemoveAll(programs); err != nil {
		panic(err)
	}
	os.Exit(status)
}

// unpack returns the image layout of an archive.
func unpack(t *testing.T, archive string) layout.Path {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return layout.Path(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// image is an archive that was written, with what lies beside it.
type image struct {
	t       *testing.T
	dir     string
	printed string
	index   v1.ImageIndex
}

// write writes an archive with more arguments, and reads it again.
func write(t *testing.T, args ...string) image {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	out := filepath.Join(dir, "dnstrace.tar")
	var stdout strings.Builder
	if err := run(append([]string{"-o", out, "-name", "localhost/dnstrace:v1"}, args...), &stdout); err != nil {
		t.Fatal(err)
	}
	root, err := unpack(t, out).ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations[containerdName] != "localhost/dnstrace:v1" {
		t.Fatalf("%+v", manifest.Manifests)
	}
	index, err := root.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image{t, dir, stdout.String(), index}
}

// entries are those of the index; the platform of a statement is unknown/unknown.
func (i image) entries() []v1.Descriptor {
	i.t.Helper()
	manifest, err := i.index.IndexManifest()
	if err != nil {
		i.t.Fatal(err)
	}
	return manifest.Manifests
}

// of returns an entry as an image, with its configuration.
func (i image) of(d v1.Descriptor) (v1.Image, *v1.ConfigFile) {
	i.t.Helper()
	entry, err := i.index.Image(d.Digest)
	if err != nil {
		i.t.Fatal(err)
	}
	config, err := entry.ConfigFile()
	if err != nil {
		i.t.Fatal(err)
	}
	return entry, config
}

// file reads what lies beside the archive.
func (i image) file(name string) string {
	i.t.Helper()
	content, err := os.ReadFile(filepath.Join(i.dir, name))
	if err != nil {
		i.t.Fatal(err)
	}
	return string(content)
}

// Both platforms are in the archive under the image's name, valid, and what they
// start is the binary.
func TestArchive(t *testing.T) {
	i := write(t, binaries(t)...)
	var platforms []string
	for _, m := range i.entries() {
		platforms = append(platforms, m.Platform.String())
		if m.Platform.OS == "unknown" {
			continue
		}
		entry, config := i.of(m)
		if err := validate.Image(entry); err != nil {
			t.Errorf("%s: %v", m.Platform, err)
		}
		if config.Architecture != m.Platform.Architecture || strings.Join(config.Config.Entrypoint, " ") != "/dnstrace" || config.Config.User != "" {
			t.Errorf("%+v", config)
		}
		want, err := os.ReadFile(program(t, m.Platform.Architecture))
		if err != nil {
			t.Fatal(err)
		}
		files := contents(t, entry)
		if files["dnstrace"].content != string(want) || files["dnstrace"].header.PAXRecords != nil || files["dnstrace"].header.Uid != 0 ||
			!strings.Contains(files["etc/ssl/certs/ca-certificates.crt"].content, "BEGIN CERTIFICATE") {
			t.Errorf("%s: files %v", m.Platform, len(files))
		}
	}
	if got := strings.Join(platforms, " "); got != "linux/amd64 linux/arm64 unknown/unknown unknown/unknown" {
		t.Error(got)
	}
	digest, err := i.index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if i.file("dnstrace.digest") != digest.String()+"\n" || i.printed != "localhost/dnstrace@"+digest.String()+"\n" {
		t.Errorf("%s; it says %s and %s", digest, i.file("dnstrace.digest"), i.printed)
	}
}

// Skopeo copies an index through the types of the OCI's specification: bytes that they
// do not give would have another digest in the registry.
func TestDigestSurvivesCopying(t *testing.T) {
	raw, err := write(t, binaries(t)...).index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	var index oci.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for n := range index.Manifests {
		index.Manifests[n].ArtifactType = "" // older ones do not know it
	}
	again, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, again) {
		t.Errorf("%s\nbecomes\n%s", raw, again)
	}
}

// Labels say where an image comes from, and when.
func TestLabels(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	i := write(t, append([]string{"-version", "v1.2.3", "-revision", "0123456789abcdef", "-licence", "MIT AND Apache-2.0"}, binaries(t)...)...)
	_, config := i.of(i.entries()[0])
	for key, want := range map[string]string{
		"revision": "0123456789abcdef", "version": "v1.2.3", "source": "https://github.com/dnstrace/dnstrace",
		"licenses": "MIT AND Apache-2.0", "created": "2023-11-14T22:13:20Z",
	} {
		if got := config.Config.Labels["org.opencontainers.image."+key]; got != want {
			t.Errorf("%s is %q", key, got)
		}
	}
	if !config.Created.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("created %s", config.Created)
	}
}

// What each image is made of is beside the archive, and in the index, which says of
// which image it is.
func TestBillOfMaterials(t *testing.T) {
	i := write(t, append([]string{"-version", "v1.2.3", "-revision", "0123456789abcdef"}, binaries(t)...)...)
	entries := i.entries()
	for n, architecture := range []string{"amd64", "arm64"} {
		bom := i.file("dnstrace-" + architecture + ".spdx.json")
		for _, want := range []string{`"golang.org/x/mod"`, `"std"`, `"golang.org/x/crypto/x509roots/fallback"`, "@0123456789abcdef", `"v1.2.3"`} {
			if !strings.Contains(bom, want) {
				t.Errorf("%s: no %s in %s", architecture, want, bom)
			}
		}
		of, at := entries[n], entries[n+2]
		entry, _ := i.of(at)
		layers, err := entry.Layers()
		if err != nil || len(layers) != 1 || at.Annotations["vnd.docker.reference.digest"] != of.Digest.String() {
			t.Fatalf("%v, %d layers, %+v", err, len(layers), at)
		}
		content, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		var got statement
		if err := json.NewDecoder(content).Decode(&got); err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(bom)); err != nil {
			t.Fatal(err)
		}
		if got.PredicateType != "https://spdx.dev/Document" || got.Subject[0].Digest["sha256"] != of.Digest.Hex || string(got.Predicate) != compact.String() {
			t.Errorf("%s: %s about %+v", architecture, got.PredicateType, got.Subject)
		}
	}
}

// CoreDNS's image: not root, and its file may bind low ports, as the kernel understands
// it.
func TestNotRoot(t *testing.T) {
	i := write(t, append([]string{"-user", "65532:65532", "-net-bind-service"}, binaries(t)...)...)
	entry, config := i.of(i.entries()[0])
	if config.Config.User != "65532:65532" {
		t.Errorf("user %q", config.Config.User)
	}
	files := contents(t, entry)
	if records := files["etc/ssl/certs/ca-certificates.crt"].header.PAXRecords; records != nil {
		t.Errorf("certificates with %q", records)
	}
	attribute := files["dnstrace"].header.PAXRecords["SCHILY.xattr.security.capability"]
	// What `setcap cap_net_bind_service=ep` writes.
	if got := hex.EncodeToString([]byte(attribute)); got != "0100000200040000000000000000000000000000" {
		t.Errorf("security.capability is %s", got)
	}
}

type packed struct {
	header  *tar.Header
	content string
}

// contents returns the files of an image.
func contents(t *testing.T, image v1.Image) map[string]packed {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]packed{}
	for _, l := range layers {
		content, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = packed{h, string(b)}
		}
	}
	return files
}

func TestSameBinariesSameBytes(t *testing.T) {
	args := append([]string{"-user", "65532:65532", "-net-bind-service", "-revision", "0123456789abcdef"}, binaries(t)...)
	first, second := write(t, args...), write(t, args...)
	files, err := os.ReadDir(first.dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("%v: %v", files, err)
	}
	for _, f := range files {
		if first.file(f.Name()) != second.file(f.Name()) {
			t.Errorf("%s differs", f.Name())
		}
	}
}

func TestWrongArguments(t *testing.T) {
	other, script := program(t, "arm64"), filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{}, {"-o", "x.tar"}, {"-o", "x.tar", "-name", "x:1", "amd64"}, {"-o", "x.tar", "-name", "x:1", "amd64=/nonexistent"},
		{"-o", "x.tar", "-name", "x:1", "amd64=" + other}, {"-o", "x.tar", "-name", "x:1", "amd64=" + script},
	} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if err := run(append([]string{"-o", "x.tar", "-name", "x:1"}, binaries(t)...), io.Discard); err == nil || !strings.Contains(err.Error(), "git log") {
		t.Errorf("%v", err)
	}
}
