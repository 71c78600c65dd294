package model

// Kind is what a shape is made of. It fixes the Go type that the generator
// gives a member of the shape (in a list or map: the type without the pointer).
type Kind uint8

const (
	Structure   Kind = iota // *T, T a generated struct
	List                    // []T
	Map                     // map[string]T
	String                  // *string
	Integer                 // *int64 (AWS's integer and long)
	Float                   // *float64 (AWS's float and double)
	Boolean                 // *bool
	Timestamp               // *time.Time
	Blob                    // []byte
	Stream                  // io.ReadCloser: the body, unread
	EventStream             // func(ctx, send) error: see the generated field
)

// Shape describes one type of a service's API: what the codecs and the
// validation walk beside the Go value. Shapes refer to each other by index
// into Service.Schema, because Go allows no cycles between initialisers.
type Shape struct {
	Name string
	Kind Kind
	// Members of a structure, in the order of the generated struct's fields.
	Members []Member
	// Elem is the element of a list or the value of a map; Key a map's key.
	Elem, Key Ref
	// Flat lists and maps repeat their own name instead of wrapping (XML, query).
	Flat bool
	// Min and Max bound a string's characters, a blob's bytes, a list's or
	// map's entries, or a number's value; they hold where HasMin, HasMax do.
	Min, Max       float64
	HasMin, HasMax bool
	// Pattern is AWS's regular expression for the whole string, or "".
	Pattern string
	// Enum are the allowed values of a string, or none.
	Enum []string
	// Payload is the index + 1 of the member that is the HTTP body, or 0.
	Payload int
	// Time is how a timestamp is written where the protocol's default is not
	// meant: "iso8601", "unixTimestamp", "rfc822", or "".
	Time string
	// XMLName is the element's name of the structure where it is a payload
	// and not called after its member.
	XMLName string
	// XMLNS is the XML namespace URI of the element, or ""; with XMLPrefix it
	// is declared for that prefix only.
	XMLNS, XMLPrefix string
	// Union structures have exactly one member set.
	Union bool
	// Sensitive values never reach a log.
	Sensitive bool
}

// Ref is a use of a shape.
type Ref struct {
	Shape int
	// Name is the element's name in XML and query ("member" by default).
	Name string
}

// Where is the part of an HTTP request or response that holds a member.
type Where uint8

const (
	Body Where = iota
	Header
	Headers // every header with the prefix LocationName, into a map
	URI
	QueryString
	StatusCode
)

// Member is one member of a structure.
type Member struct {
	// Name is AWS's name of the member; in JSON also its key.
	Name  string
	Shape int
	// Wire is the name in XML, query, headers, URI and (if any) JSON where
	// it differs from Name, else "".
	Wire string
	// QueryName is the name in the EC2 protocol's requests, where AWS names one.
	QueryName string
	Where     Where
	Required  bool
	// Flat: this member's list or map is flattened even if its shape is not.
	Flat bool
	// Attr members are attributes of the XML element that contains them.
	Attr bool
	// XMLNS and XMLPrefix qualify the element ("xsi").
	XMLNS, XMLPrefix string
	// Time is the timestamp format of this use, or "".
	Time string
	// Token members are idempotency tokens: clients fill them in.
	Token bool
}

// WireName is the member's name in every protocol but EC2's requests.
func (m *Member) WireName() string {
	if m.Wire != "" {
		return m.Wire
	}
	return m.Name
}
