package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// apiModel is the part of an api-2.json file that matters here.
type apiModel struct {
	Metadata   metadata              `json:"metadata"`
	Operations map[string]*operation `json:"operations"`
	Shapes     map[string]*shape     `json:"shapes"`
}

type metadata struct {
	APIVersion     string   `json:"apiVersion"`
	EndpointPrefix string   `json:"endpointPrefix"`
	SigningName    string   `json:"signingName"`
	GlobalEndpoint string   `json:"globalEndpoint"`
	JSONVersion    string   `json:"jsonVersion"`
	Protocol       string   `json:"protocol"`
	Protocols      []string `json:"slipwayProtocols"` // overlays only: the names in package model
	ServiceID      string   `json:"serviceId"`
	TargetPrefix   string   `json:"targetPrefix"`
	CBORName       string   `json:"slipwayCBORName"`        // overlays only
	AltTarget      string   `json:"slipwayAltTargetPrefix"` // overlays only
	AltSigning     string   `json:"slipwayAltSigningName"`  // overlays only
	XMLNamespace   string   `json:"xmlNamespace"`
	TimeFormat     string   `json:"slipwayTimeFormat"`     // overlays only
	ValidationCode string   `json:"slipwayValidationCode"` // overlays only
}

type operation struct {
	Name string `json:"name"`
	HTTP struct {
		Method       string `json:"method"`
		RequestURI   string `json:"requestUri"`
		ResponseCode int    `json:"responseCode"`
	} `json:"http"`
	Input    *ref            `json:"input"`
	Output   *ref            `json:"output"`
	Errors   []ref           `json:"errors"`
	AuthType string          `json:"authtype"`
	Checksum json.RawMessage `json:"httpChecksum"`
}

type ref struct {
	Shape            string          `json:"shape"`
	LocationName     string          `json:"locationName"`
	Location         string          `json:"location"`
	QueryName        string          `json:"queryName"`
	ResultWrapper    string          `json:"resultWrapper"`
	Flattened        bool            `json:"flattened"`
	Streaming        bool            `json:"streaming"`
	XMLAttribute     bool            `json:"xmlAttribute"`
	XMLNamespace     json.RawMessage `json:"xmlNamespace"`
	TimestampFormat  string          `json:"timestampFormat"`
	IdempotencyToken bool            `json:"idempotencyToken"`
}

type member struct {
	name string
	ref
}

// members keeps the order of the file: it is the order on the wire.
type members []member

func (m *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		mem := member{name: t.(string)}
		if err := d.Decode(&mem.ref); err != nil {
			return fmt.Errorf("member %s: %w", mem.name, err)
		}
		*m = append(*m, mem)
	}
	return nil
}

type shape struct {
	Type            string          `json:"type"`
	Members         members         `json:"members"`
	Required        []string        `json:"required"`
	Member          *ref            `json:"member"`
	Key             *ref            `json:"key"`
	Value           *ref            `json:"value"`
	Min             *float64        `json:"min"`
	Max             *float64        `json:"max"`
	Pattern         *string         `json:"pattern"`
	Enum            []string        `json:"enum"`
	Payload         string          `json:"payload"`
	Flattened       bool            `json:"flattened"`
	LocationName    string          `json:"locationName"`
	TimestampFormat string          `json:"timestampFormat"`
	XMLNamespace    json.RawMessage `json:"xmlNamespace"`
	Streaming       bool            `json:"streaming"`
	EventStream     bool            `json:"eventstream"`
	Exception       bool            `json:"exception"`
	Union           bool            `json:"union"`
	Sensitive       bool            `json:"sensitive"`
	Fault           bool            `json:"fault"`
	Error           *struct {
		Code           string `json:"code"`
		HTTPStatusCode int    `json:"httpStatusCode"`
		SenderFault    bool   `json:"senderFault"`
	} `json:"error"`
	// Relax, in overlays only, takes away what AWS's model promises and AWS
	// itself does not enforce: "required", "min", "max", "pattern", "enum".
	Relax []string `json:"slipwayRelax"`
	// Optional, in overlays only, names members that the older model calls
	// required and AWS does not.
	Optional []string `json:"slipwayOptional"`
}

func load(s source, models, overlay string) (*apiModel, error) {
	m := &apiModel{Operations: map[string]*operation{}, Shapes: map[string]*shape{}}
	if s.dir != "" {
		files, err := filepath.Glob(filepath.Join(models, s.dir, "*", "api-2.json"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no model in %s", filepath.Join(models, s.dir))
		}
		sort.Strings(files)
		if err := readJSON(files[len(files)-1], m); err != nil {
			return nil, err
		}
	}
	over := &apiModel{}
	switch err := readJSON(overlay, over); {
	case errors.Is(err, fs.ErrNotExist):
		if s.dir == "" {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		merge(m, over)
	}
	return m, nil
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// merge lays an overlay over a model: operations merge field by field, shapes member by member, enum values and required names are added.
func merge(m, over *apiModel) {
	mergeMetadata(&m.Metadata, over.Metadata)
	for n, o := range over.Operations {
		if o.Name == "" {
			o.Name = n
		}
		if base := m.Operations[n]; base != nil {
			mergeOperation(base, o)
		} else {
			m.Operations[n] = o
		}
	}
	for n, o := range over.Shapes {
		if base := m.Shapes[n]; base != nil {
			mergeShape(base, o)
		} else {
			m.Shapes[n] = o
		}
	}
}

func mergeOperation(b, o *operation) {
	if o.HTTP.Method != "" {
		b.HTTP = o.HTTP
	}
	if o.Input != nil {
		b.Input = o.Input
	}
	if o.Output != nil {
		b.Output = o.Output
	}
	if o.Errors != nil {
		b.Errors = o.Errors
	}
	if o.AuthType != "" {
		b.AuthType = o.AuthType
	}
	if o.Checksum != nil {
		b.Checksum = o.Checksum
	}
}

func mergeMetadata(b *metadata, o metadata) {
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	set(&b.APIVersion, o.APIVersion)
	set(&b.EndpointPrefix, o.EndpointPrefix)
	set(&b.SigningName, o.SigningName)
	set(&b.JSONVersion, o.JSONVersion)
	set(&b.Protocol, o.Protocol)
	set(&b.ServiceID, o.ServiceID)
	set(&b.TargetPrefix, o.TargetPrefix)
	set(&b.AltTarget, o.AltTarget)
	set(&b.AltSigning, o.AltSigning)
	set(&b.CBORName, o.CBORName)
	set(&b.ValidationCode, o.ValidationCode)
	set(&b.TimeFormat, o.TimeFormat)
	set(&b.XMLNamespace, o.XMLNamespace)
	if o.Protocols != nil {
		b.Protocols = o.Protocols
	}
}

func mergeShape(b, o *shape) {
	if o.Type != "" {
		b.Type = o.Type
	}
	for _, mem := range o.Members {
		replaced := false
		for i := range b.Members {
			if b.Members[i].name == mem.name {
				b.Members[i], replaced = mem, true
			}
		}
		if !replaced {
			b.Members = append(b.Members, mem)
		}
	}
	for _, r := range o.Required {
		if !contains(b.Required, r) {
			b.Required = append(b.Required, r)
		}
	}
	for _, e := range o.Enum {
		if !contains(b.Enum, e) {
			b.Enum = append(b.Enum, e)
		}
	}
	if o.Min != nil {
		b.Min = o.Min
	}
	if o.Max != nil {
		b.Max = o.Max
	}
	if o.Pattern != nil {
		b.Pattern = o.Pattern
	}
	if o.LocationName != "" {
		b.LocationName = o.LocationName
	}
	if o.Error != nil {
		b.Error = o.Error
	}
	if o.Exception {
		b.Exception = true
	}
	for _, r := range o.Relax {
		switch r {
		case "required":
			b.Required = nil
		case "min":
			b.Min = nil
		case "max":
			b.Max = nil
		case "pattern":
			b.Pattern = nil
		case "enum":
			b.Enum = nil
		}
	}
	for _, name := range o.Optional {
		for i, r := range b.Required {
			if r == name {
				b.Required = append(b.Required[:i:i], b.Required[i+1:]...)
				break
			}
		}
	}
}
