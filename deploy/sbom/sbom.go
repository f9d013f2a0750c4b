// Package sbom writes what a Go program is made of as an SPDX document
// (https://spdx.github.io/spdx-spec/v2.3): every module that is linked into it, with
// version and licence, and the standard library. It reads the program, not go.mod, so it
// names what is inside.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/package-url/packageurl-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"golang.org/x/mod/module"

	"github.com/dnstrace/dnstrace/deploy/licence"
)

// Predicate is the type of an SPDX document in an in-toto statement
// (https://github.com/in-toto/attestation, spec/predicates/spdx.md).
const Predicate = "https://spdx.dev/Document"

// Source says what a program was built from.
type Source struct {
	Name     string    // of the program
	Version  string    // as people call it
	Revision string    // commit
	URL      string    // of the repository
	Licence  string    // of the program's own code, an SPDX expression
	Created  time.Time // of the commit: the same source gives the same document

	// ModuleCache is where `go env GOMODCACHE` points to: the licences are read there.
	ModuleCache string
	// Data are modules of which the program's image holds files that are not in the
	// program.
	Data []*debug.Module
}

// Of returns the document of a program, as indented JSON.
func Of(program []byte, source Source) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: expected a program that Go built", source.Name, err)
	}
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	d := document{&spdx.Document{
		SPDXVersion:       spdx.Version,
		DataLicense:       spdx.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      source.Name + "-" + source.Version,
		DocumentNamespace: source.URL + "/spdx/" + source.Name + "-" + digest, // unique: the program's
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "dnstrace-images"}},
			Created:  source.Created.UTC().Format(time.RFC3339),
		},
	}}
	self := d.add(application(info, source, digest))
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, self)
	d.relate(self, common.TypeRelationshipDependsOn, d.add(standardLibrary(info.GoVersion)))
	for _, m := range info.Deps {
		p, err := linked(m, source.ModuleCache)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source.Name, err)
		}
		d.relate(self, common.TypeRelationshipDependsOn, d.add(p))
	}
	for _, m := range source.Data {
		p, err := linked(m, source.ModuleCache)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source.Name, err)
		}
		d.relate("DOCUMENT", common.TypeRelationshipDescribe, d.add(p))
	}
	var out bytes.Buffer
	if err := spdxjson.Write(d.Document, &out, spdxjson.Indent(" ")); err != nil {
		return nil, fmt.Errorf("%s: %w", source.Name, err)
	}
	return out.Bytes(), nil
}

// document is one that grows.
type document struct{ *spdx.Document }

// add gives a package an identifier, under which it is in the document.
func (d document) add(p *spdx.Package) common.ElementID {
	p.PackageSPDXIdentifier = common.ElementID(fmt.Sprintf("Package-%d", len(d.Packages)))
	d.Packages = append(d.Packages, p)
	return p.PackageSPDXIdentifier
}

func (d document) relate(a common.ElementID, how string, b common.ElementID) {
	d.Relationships = append(d.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(a)), Relationship: how, RefB: common.MakeDocElementID("", string(b)),
	})
}

const unknown = "NOASSERTION" // SPDX 2.3, 7.13: no attempt was made to tell

// newPackage returns a package with what every one has.
func newPackage(name, version, licence string) *spdx.Package {
	return &spdx.Package{
		PackageName: name, PackageVersion: version,
		PackageSupplier:         &common.Supplier{Supplier: unknown},
		PackageDownloadLocation: unknown,
		PackageLicenseConcluded: licence, PackageLicenseDeclared: licence,
		PackageCopyrightText:  unknown,
		PrimaryPackagePurpose: "LIBRARY",
	}
}

// application is the program itself.
func application(info *buildinfo.BuildInfo, source Source, digest string) *spdx.Package {
	p := newPackage(source.Name, source.Version, source.Licence)
	p.PrimaryPackagePurpose = "APPLICATION"
	p.PackageSupplier = &common.Supplier{Supplier: "dnstrace", SupplierType: "Organization"}
	p.PackageDownloadLocation = "git+" + source.URL + "@" + source.Revision
	p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: digest}}
	p.PackageSourceInfo = fmt.Sprintf("built from %s of %s with %s", info.Path, source.Revision, info.GoVersion)
	setPURL(p, info.Main.Path, source.Version, strings.TrimPrefix(strings.TrimPrefix(info.Path, info.Main.Path), "/"))
	return p
}

// standardLibrary is the part of Go that is linked into every program.
func standardLibrary(version string) *spdx.Package {
	version = strings.TrimPrefix(version, "go")
	p := newPackage("std", version, "BSD-3-Clause")
	setPURL(p, "std", version, "")
	return p
}

// linked is a module that a program is linked with.
func linked(m *debug.Module, cache string) (*spdx.Package, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	dir, err := directory(m, cache)
	if err != nil {
		return nil, err
	}
	declared, err := licence.Of(dir)
	if err != nil {
		return nil, fmt.Errorf("%s@%s: %w (where the module is missing, `go mod download` brings it)", m.Path, m.Version, err)
	}
	p := newPackage(m.Path, m.Version, declared)
	if m.Sum != "" {
		// No checksum of SPDX: it is one of a list of the module's files.
		p.PackageSourceInfo = "go.sum: " + m.Sum
	}
	setPURL(p, m.Path, m.Version, "")
	return p, nil
}

// directory is where the module cache has a module (go.dev/ref/mod, "Module cache").
func directory(m *debug.Module, cache string) (string, error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Path, err)
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Path, err)
	}
	return filepath.Join(cache, filepath.FromSlash(path)+"@"+version), nil
}

// setPURL names a package as databases of vulnerabilities do.
func setPURL(p *spdx.Package, path, version, subpath string) {
	namespace, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		namespace, name = path[:i], path[i+1:]
	}
	purl := packageurl.NewPackageURL(packageurl.TypeGolang, namespace, name, version, nil, subpath)
	p.PackageExternalReferences = []*spdx.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl.ToString(),
	}}
}
