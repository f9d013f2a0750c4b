package main

import (
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dnstrace/dnstrace/deploy/sbom"
)

// inToto is the media type of a statement (https://github.com/in-toto/attestation).
const inToto = "application/vnd.in-toto+json"

// statement says something about an image.
type statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// attest returns the entry of an index that says what an image of the index is made of.
// It is of the form that BuildKit gives it (docs/attestations/attestation-storage.md in
// its repository), which registries keep with the image, runtimes pass over, and `docker
// buildx imagetools inspect` and scanners read.
func attest(name string, image v1.Image, bom []byte) (mutate.IndexAddendum, error) {
	digest, err := image.Digest()
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	content, err := json.Marshal(statement{
		Type: "https://in-toto.io/Statement/v0.1", PredicateType: sbom.Predicate, Predicate: bom,
		Subject: []subject{{Name: name, Digest: map[string]string{digest.Algorithm: digest.Hex}}},
	})
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	attestation := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	attestation, err = mutate.Append(attestation, mutate.Addendum{
		Layer: static.NewLayer(content, inToto), Annotations: map[string]string{"in-toto.io/predicate-type": sbom.Predicate},
	})
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	// No platform has it: nobody takes it for an image to run.
	none := v1.Platform{OS: "unknown", Architecture: "unknown"}
	config, err := attestation.ConfigFile()
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = none.OS, none.Architecture
	if attestation, err = mutate.ConfigFile(attestation, config); err != nil {
		return mutate.IndexAddendum{}, err
	}
	return mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{Platform: &none, Annotations: map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.String(),
	}}}, nil
}
