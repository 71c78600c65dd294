package sigv4

import (
	"errors"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

// code is an error code and status in one family of services.
type code struct {
	name   string
	status int
}

// The families answer the same refusal with different codes. JSON services
// use exceptions with status 400, query services plain names with 403, EC2
// and S3 have their own. Sources: "Common Errors" pages of each API reference,
// and the S3 error code list.
var (
	jsonCodes = map[Kind]code{
		Missing: {"MissingAuthenticationTokenException", 400}, Incomplete: {"IncompleteSignatureException", 400},
		UnknownKey: {"UnrecognizedClientException", 400}, BadToken: {"UnrecognizedClientException", 400},
		ExpiredToken: {"ExpiredTokenException", 400}, Mismatch: {"InvalidSignatureException", 400},
		WrongScope: {"InvalidSignatureException", 400}, Skewed: {"InvalidSignatureException", 400},
		Expired: {"InvalidSignatureException", 400}, Unsupported: {"IncompleteSignatureException", 400},
		UnsignedHeaders: {"InvalidSignatureException", 400},
	}
	queryCodes = map[Kind]code{
		Missing: {"MissingAuthenticationToken", 403}, Incomplete: {"IncompleteSignature", 400},
		UnknownKey: {"InvalidClientTokenId", 403}, BadToken: {"InvalidClientTokenId", 403},
		ExpiredToken: {"ExpiredToken", 403}, Mismatch: {"SignatureDoesNotMatch", 403},
		WrongScope: {"SignatureDoesNotMatch", 403}, Skewed: {"SignatureDoesNotMatch", 403},
		Expired: {"SignatureDoesNotMatch", 403}, Unsupported: {"IncompleteSignature", 400},
		UnsignedHeaders: {"SignatureDoesNotMatch", 403},
	}
	ec2Codes = map[Kind]code{
		Missing: {"MissingAuthenticationToken", 403}, Incomplete: {"IncompleteSignature", 400},
		UnknownKey: {"AuthFailure", 401}, BadToken: {"AuthFailure", 401},
		ExpiredToken: {"RequestExpired", 400}, Mismatch: {"AuthFailure", 401},
		WrongScope: {"AuthFailure", 401}, Skewed: {"RequestExpired", 400},
		Expired: {"RequestExpired", 400}, Unsupported: {"IncompleteSignature", 400},
		UnsignedHeaders: {"AuthFailure", 401},
	}
	s3Codes = map[Kind]code{
		Missing: {"AccessDenied", 403}, Incomplete: {"AuthorizationHeaderMalformed", 400},
		UnknownKey: {"InvalidAccessKeyId", 403}, BadToken: {"InvalidToken", 400},
		ExpiredToken: {"ExpiredToken", 400}, Mismatch: {"SignatureDoesNotMatch", 403},
		WrongScope: {"AuthorizationHeaderMalformed", 400}, Skewed: {"RequestTimeTooSkewed", 403},
		Expired: {"AccessDenied", 403}, Unsupported: {"InvalidRequest", 400},
		UnsignedHeaders: {"AccessDenied", 403},
	}
	s3Messages = map[Kind]string{
		Missing:      "Access Denied",
		UnknownKey:   "The AWS Access Key Id you provided does not exist in our records.",
		BadToken:     "The provided token is malformed or otherwise invalid.",
		ExpiredToken: "The provided token has expired.",
		Mismatch:     "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
		Skewed:       "The difference between the request time and the current time is too large.",
	}
)

// Error turns a Problem into the error that a service with this protocol
// answers; other errors come back as they are.
func Error(p model.Protocol, err error) error {
	var pr *Problem
	if !errors.As(err, &pr) {
		return err
	}
	codes, msg := queryCodes, pr.Detail
	switch p {
	case model.JSON10, model.JSON11, model.RPCCBOR:
		codes = jsonCodes
	case model.RESTJSON: // the same names, but as HTTP would have it
		return awserr.New(jsonCodes[pr.Kind].name, "%s", msg).WithStatus(403).WithCause(pr.Err)
	case model.EC2:
		codes = ec2Codes
		if codes[pr.Kind].name == "AuthFailure" {
			msg = "AWS was not able to validate the provided access credentials"
		}
	case model.RESTXML:
		codes = s3Codes
		if m := s3Messages[pr.Kind]; m != "" {
			msg = m
		}
	}
	c := codes[pr.Kind]
	return awserr.New(c.name, "%s", msg).WithStatus(c.status).WithCause(pr.Err)
}
