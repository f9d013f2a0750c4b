package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// binaries are two programs by their looks.
func binaries(t *testing.T) []string {
	t.Helper()
	var args []string
	for _, architecture := range []string{"amd64", "arm64"} {
		path := filepath.Join(t.TempDir(), "dnstrace")
		if err := os.WriteFile(path, []byte("#!"+architecture), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, architecture+"="+path)
	}
	return args
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

// Both platforms are in the archive under the image's name, valid, and what they
// start is the binary.
func TestArchive(t *testing.T) {
	args := binaries(t)
	out := filepath.Join(t.TempDir(), "images", "dnstrace.tar")
	if err := run(append([]string{"-o", out, "-name", "localhost/dnstrace:v1"}, args...)); err != nil {
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
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	var architectures []string
	for _, m := range manifest.Manifests {
		architectures = append(architectures, m.Platform.String())
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != m.Platform.Architecture || strings.Join(config.Config.Entrypoint, " ") != "/dnstrace" {
			t.Errorf("%+v", config)
		}
		files := contents(t, image)
		if files["dnstrace"] != "#!"+m.Platform.Architecture || !strings.Contains(files["etc/ssl/certs/ca-certificates.crt"], "BEGIN CERTIFICATE") {
			t.Errorf("%s: files %v", m.Platform, len(files))
		}
	}
	if got := strings.Join(architectures, " "); got != "linux/amd64 linux/arm64" {
		t.Error(got)
	}
}

// contents returns the files of an image.
func contents(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
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
			files[h.Name] = string(b)
		}
	}
	return files
}

func TestSameBinariesSameBytes(t *testing.T) {
	args := binaries(t)
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(t.TempDir(), "x.tar")
		if err := run(append([]string{"-o", out, "-name", "x:1"}, args...)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives[i] = b
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("they differ")
	}
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"-o", "x.tar"}, {"-o", "x.tar", "-name", "x:1", "amd64"}, {"-o", "x.tar", "-name", "x:1", "amd64=/nonexistent"}} {
		if err := run(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
