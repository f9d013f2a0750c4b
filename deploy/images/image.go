package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/dnstrace/dnstrace/deploy/sbom"
)

// newIndex makes an image with a platform for each ARCHITECTURE=BINARY, and returns the
// SPDX document of each architecture as well.
func (s spec) newIndex(args []string) (index v1.ImageIndex, boms map[string][]byte, err error) {
	index, boms = mutate.IndexMediaType(empty.Index, types.OCIImageIndex), map[string][]byte{}
	var attestations []mutate.IndexAddendum
	for _, arg := range args {
		p, err := parsePlatform(arg)
		if err != nil {
			return nil, nil, err
		}
		binary, err := readBinary(p)
		if err != nil {
			return nil, nil, err
		}
		image, err := s.newImage(p, binary)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.binary, err)
		}
		bom, err := s.billOfMaterials(p, binary)
		if err != nil {
			return nil, nil, err
		}
		statement, err := attest(s.name, image, bom)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.binary, err)
		}
		boms[p.architecture], attestations = bom, append(attestations, statement)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.architecture}},
		})
	}
	index = mutate.Annotations(mutate.AppendManifests(index, attestations...), s.labels()).(v1.ImageIndex)
	index, err = canonical(index)
	return index, boms, err
}

// readBinary reads a program and checks that it is one for its platform that needs
// nothing but the kernel.
func readBinary(p platform) ([]byte, error) {
	binary, err := os.ReadFile(p.binary)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: expected a program that Go built", p.binary, err)
	}
	for key, want := range map[string]string{"GOOS": "linux", "GOARCH": p.architecture, "CGO_ENABLED": "0"} {
		if got := setting(info, key); got != want {
			return nil, fmt.Errorf("%s: built with %s=%s: expected %s", p.binary, key, got, want)
		}
	}
	return binary, nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func (s spec) newImage(p platform, binary []byte) (v1.Image, error) {
	name := "/" + filepath.Base(p.binary)
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	program := file{path: name, mode: 0o755, content: binary}
	if s.netBindService {
		program.capability = netBindService()
	}
	// The certificates first: they change seldom, and layers are shared.
	for _, f := range []file{{path: "/etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: roots()}, program} {
		layer, err := f.layer()
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", p.architecture, v1.Time{Time: s.created}
	config.Config = v1.Config{Entrypoint: []string{name}, Env: []string{"PATH=/"}, User: s.user, Labels: s.labels()}
	return mutate.ConfigFile(image, config)
}

// labels say where an image comes from
// (https://github.com/opencontainers/image-spec, annotations.md).
func (s spec) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.source":   repository,
		"org.opencontainers.image.revision": s.revision,
		"org.opencontainers.image.version":  s.version,
		"org.opencontainers.image.licenses": s.licence,
		"org.opencontainers.image.created":  s.created.Format("2006-01-02T15:04:05Z07:00"),
	}
}

// billOfMaterials is the SPDX document of what an image holds.
func (s spec) billOfMaterials(p platform, binary []byte) ([]byte, error) {
	certificates, err := rootsModule()
	if err != nil {
		return nil, err
	}
	return sbom.Of(binary, sbom.Source{
		Name: filepath.Base(p.binary), Version: s.version, Revision: s.revision, URL: repository, Licence: s.licence,
		Created: s.created, ModuleCache: s.moduleCache, Data: []*debug.Module{certificates},
	})
}

// roots are the certificates of Mozilla's root store, but for those that it trusts
// with conditions that a file of certificates cannot tell.
func roots() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return b.Bytes()
}

// rootsModule is the module that has them, of which this program is made.
func rootsModule() (*debug.Module, error) {
	const path = "golang.org/x/crypto/x509roots/fallback"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, fmt.Errorf("built without modules: the version of %s is not known", path)
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m, nil
		}
	}
	return nil, fmt.Errorf("the version of %s is not known", path)
}
