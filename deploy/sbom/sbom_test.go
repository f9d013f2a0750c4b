package sbom

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
)

// program builds the program of testdata.
func program(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if message, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, message)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func source(t *testing.T) Source {
	t.Helper()
	cache, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return Source{
		Name: "program", Version: "v1.2.3", Revision: "0123456789abcdef", URL: "https://example.org/repository", Licence: "Apache-2.0",
		Created: time.Unix(1_700_000_000, 0), ModuleCache: strings.TrimSpace(string(cache)),
	}
}

// packages are those of a document, by name.
func packages(doc *spdx.Document) map[string]*spdx.Package {
	all := map[string]*spdx.Package{}
	for _, p := range doc.Packages {
		all[p.PackageName] = p
	}
	return all
}

// The document names the program, the library that is linked into it, and Go's own, each
// with version, licence and a name for databases; it is valid.
func TestOf(t *testing.T) {
	src := source(t)
	roots := moduleOf(t, "golang.org/x/crypto/x509roots/fallback")
	src.Data = []*debug.Module{roots}
	content, err := Of(program(t), src)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.CreationInfo.Created != "2023-11-14T22:13:20Z" || !strings.HasPrefix(doc.DocumentNamespace, "https://example.org/repository/spdx/program-") {
		t.Errorf("%+v", doc)
	}
	all := packages(doc)
	for name, want := range map[string]struct{ version, licence, purl string }{
		"program":          {"v1.2.3", "Apache-2.0", "pkg:golang/github.com/dnstrace/dnstrace@v1.2.3#deploy/sbom/testdata/program"},
		"golang.org/x/mod": {moduleOf(t, "golang.org/x/mod").Version, "BSD-3-Clause", "pkg:golang/golang.org/x/mod@" + moduleOf(t, "golang.org/x/mod").Version},
		"std":              {strings.TrimPrefix(runtime.Version(), "go"), "BSD-3-Clause", "pkg:golang/std@" + strings.TrimPrefix(runtime.Version(), "go")},
		roots.Path:         {roots.Version, "BSD-3-Clause", "pkg:golang/" + roots.Path + "@" + roots.Version},
	} {
		p := all[name]
		if p == nil {
			t.Errorf("no %s in %s", name, content)
			continue
		}
		if p.PackageVersion != want.version || p.PackageLicenseDeclared != want.licence || p.PackageExternalReferences[0].Locator != want.purl {
			t.Errorf("%s: %s, %s, %s; expected %+v", name, p.PackageVersion, p.PackageLicenseDeclared, p.PackageExternalReferences[0].Locator, want)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d packages", len(all))
	}
	wantRelations(t, doc)
}

// wantRelations wants each package to be one that the document describes, or one that
// the program is linked with.
func wantRelations(t *testing.T, doc *spdx.Document) {
	t.Helper()
	var described, linked []string
	for _, r := range doc.Relationships {
		i := slices.IndexFunc(doc.Packages, func(p *spdx.Package) bool { return p.PackageSPDXIdentifier == r.RefB.ElementRefID })
		switch r.Relationship {
		case common.TypeRelationshipDescribe:
			described = append(described, doc.Packages[i].PackageName)
		case common.TypeRelationshipDependsOn:
			linked = append(linked, doc.Packages[i].PackageName)
		}
	}
	if got := strings.Join(described, " "); got != "program golang.org/x/crypto/x509roots/fallback" {
		t.Errorf("it describes %s", got)
	}
	if got := strings.Join(linked, " "); got != "std golang.org/x/mod" {
		t.Errorf("linked with %s", got)
	}
}

// moduleOf is a module that go.mod names.
func moduleOf(t *testing.T, path string) *debug.Module {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return &debug.Module{Path: path, Version: strings.TrimSpace(string(out))}
}

// A document that would lack a licence is none.
func TestMissingModule(t *testing.T) {
	src := source(t)
	src.ModuleCache = t.TempDir()
	if _, err := Of(program(t), src); err == nil || !strings.Contains(err.Error(), "go mod download") {
		t.Errorf("%v", err)
	}
	if _, err := Of([]byte("#!/bin/sh"), source(t)); err == nil || !strings.Contains(err.Error(), "expected a program that Go built") {
		t.Errorf("%v", err)
	}
}
